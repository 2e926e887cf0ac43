"""Images with everything that mask strategies and their statistics read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from dppmask.data.base import ImageSource
from dppmask.data.transforms import EvalTransform
from dppmask.evaluation.base import Part, Subject
from dppmask.evaluation.features import (
    eval_transform_of,
    first_images,
    frozen,
    part_batches,
    resize_ratio_of,
)
from dppmask.evaluation.mask_measures import PatchObjects, pixels_on_patches
from dppmask.masks import MaskContext, Tokens
from dppmask.models.encoder import Encoder

MIDWAY = 0.5  # of the training: where masks that change over it are looked at


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

    def locate(self, stored: Sequence[Tensor | None]) -> list[Tensor] | None:
        """The objects of stored images as the encoder sees them, bool ``[O, H, W]`` each, those that it does.

        None if an image does not say where its objects are.
        """
        known = [objects for objects in stored if objects is not None]
        if len(known) < len(stored):
            return None
        seen = [self.transform.geometry(objects) for objects in known]
        return [objects[objects.flatten(1).any(1)] for objects in seen]


@dataclass(frozen=True, eq=False)
class MeasuredBatch:
    """A batch of images.

    Attributes:
        images: ``[B, C, H, W]`` on the device, normalised.
        context: What strategies read.
        grid: (rows, columns) of patches.
        objects: Where the objects are, or None where that is not known.
        object_pixels: The same for each image, bool ``[O, H, W]``, in the order of ``objects``.
    """

    images: Tensor
    context: MaskContext
    grid: tuple[int, int]
    objects: PatchObjects | None
    object_pixels: Sequence[Tensor] | None = None

    def repeated(self, row: int, times: int, subject: Subject, needs: frozenset[str]) -> "MeasuredBatch":
        """One image of the batch many times, as a batch of its own.

        Args:
            row: Which image.
            times: How often.
            subject: As for :func:`measured_batches`.
            needs: As for :func:`measured_batches`.
        """
        images = self.images[row : row + 1].expand(times, -1, -1, -1)
        objects = None if self.objects is None else self.objects.repeated(row, times)
        return MeasuredBatch(images, make_context(images, self.grid, subject, needs), self.grid, objects)


def measured_batches(
    part: Part,
    subject: Subject,
    view: PatchView,
    *,
    needs: frozenset[str],
    count: int | None,
) -> Iterator[MeasuredBatch]:
    """The first ``count`` images of a part (None = all).

    Args:
        part: Whose images.
        subject: The encoder, if there is one, and where to compute.
        view: How images are cut into patches.
        needs: What the strategies read.
        count: How many.
    """
    compute = subject.compute
    knows_objects = part.images[0].objects is not None
    among = first_images(part, count)
    for batch in part_batches(part, view.transform, compute, "masks", among=among):
        images = batch.images.to(compute.device)
        context = make_context(images, view.grid, subject, needs)
        stored = [part.images[i].objects for i in batch.sample_ids.tolist()] if knows_objects else [None]
        pixels = view.locate(stored)
        objects = None
        if pixels is not None:
            objects = PatchObjects.join([pixels_on_patches(one, view.grid) for one in pixels])
        yield MeasuredBatch(images, context, view.grid, objects, pixels)


def make_context(
    images: Tensor,
    grid: tuple[int, int],
    subject: Subject,
    needs: frozenset[str] = frozenset(),
    *,
    progress: float = MIDWAY,
) -> MaskContext:
    """Images and, where there is an encoder, its tokens; the encoder also stands in for a teacher.

    Strategies that change over the training are met in its middle, unless ``progress`` says where.
    """
    encoder = subject.encoder
    if encoder is None:
        return MaskContext(images, grid, progress)
    encoder = encoder.to(images.device)

    def teacher() -> Tokens:
        with frozen(encoder, subject.compute):
            return encoder.encode(images, attention="attention" in needs)

    with frozen(encoder, subject.compute):
        return MaskContext(images, grid, progress, tokens=encoder.embed(images), teacher=teacher)
