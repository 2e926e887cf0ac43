"""Images with everything that mask strategies and their statistics read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from dppmask.data.base import ImageSource
from dppmask.data.transforms import EvalTransform
from dppmask.evaluation.base import Part, Subject
from dppmask.evaluation.features import eval_transform_of, frozen, part_batches, resize_ratio_of
from dppmask.evaluation.mask_measures import PatchObjects, pixels_on_patches
from dppmask.masks import MaskContext, Tokens
from dppmask.masks.features import Source, read_features
from dppmask.models.encoder import Encoder


@dataclass(frozen=True, eq=False)
class PatchView:
    """How stored images become images of patches.

    Attributes:
        transform: From a stored image to the encoder's input.
        grid: (rows, columns) of patches.
    """

    transform: EvalTransform
    grid: tuple[int, int]

    @classmethod
    def of(cls, encoder: Encoder, images: ImageSource) -> "PatchView":
        """As an encoder sees the images."""
        return cls(eval_transform_of(encoder, images), encoder.grid)

    @classmethod
    def square(cls, side: int, patch_size: int, images: ImageSource) -> "PatchView":
        """Square images and patches."""
        transform = EvalTransform(side, resize_ratio=resize_ratio_of(images))
        return cls(transform, (side // patch_size, side // patch_size))

    def locate(self, stored: Sequence[Tensor | None]) -> PatchObjects | None:
        """The objects of stored images on their patches; None if an image does not say where."""
        known = [objects for objects in stored if objects is not None]
        if len(known) < len(stored):
            return None
        return PatchObjects.join([pixels_on_patches(self.transform.geometry(o), self.grid) for o in known])


@dataclass(frozen=True, eq=False)
class MeasuredBatch:
    """A batch of images.

    Attributes:
        context: What strategies read.
        grid: (rows, columns) of patches.
        features: ``[B, N, D]``, what the kernel of ``log_det`` compares.
        objects: Where the objects are, or None where that is not known.
    """

    context: MaskContext
    grid: tuple[int, int]
    features: Tensor
    objects: PatchObjects | None


def measured_batches(
    part: Part,
    subject: Subject,
    view: PatchView,
    *,
    needs: frozenset[str],
    kernel_source: Source,
    count: int | None,
) -> Iterator[MeasuredBatch]:
    """The first ``count`` images of a part (None = all).

    Args:
        part: Whose images.
        subject: The encoder, if there is one, and where to compute.
        view: How images are cut into patches.
        needs: What the strategies read.
        kernel_source: What the kernel of ``log_det`` compares.
        count: How many.
    """
    compute = subject.compute
    knows_objects = part.images[0].objects is not None
    among = None if count is None else range(min(count, len(part.images)))
    for batch in part_batches(part, view.transform, compute, "masks", among=among):
        context = make_context(batch.images.to(compute.device), view, subject, needs)
        features = read_features(context, kernel_source)
        stored = [part.images[i].objects for i in batch.sample_ids.tolist()] if knows_objects else [None]
        yield MeasuredBatch(context, view.grid, features, view.locate(stored))


def make_context(
    images: Tensor, view: PatchView, subject: Subject, needs: frozenset[str] = frozenset()
) -> MaskContext:
    """Images and, where there is an encoder, its tokens; the encoder also stands in for a teacher."""
    encoder = subject.encoder
    if encoder is None:
        return MaskContext(images, view.grid)
    encoder = encoder.to(images.device)

    def teacher() -> Tokens:
        with frozen(encoder, subject.compute):
            return encoder.encode(images, attention="attention" in needs)

    with frozen(encoder, subject.compute):
        return MaskContext(images, view.grid, tokens=encoder.embed(images), teacher=teacher)
