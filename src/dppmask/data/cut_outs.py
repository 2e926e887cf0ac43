"""Background variants of any labelled images with object masks: foregrounds cut out and pasted elsewhere."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from dppmask.data.base import ImageSource, Sample, Split
from dppmask.data.compositing import (
    Box,
    blacken_box,
    keep_foreground,
    paste,
    remove_foreground,
    tile_box,
)
from dppmask.data.variants import (
    MIXED,
    VARIANTS,
    VariantPart,
    VariantSource,
    background_class,
    check_variant,
    draw,
)
from dppmask.errors import UserError
from dppmask.rng import fold_in

Objects = Literal["largest", "union"]
Watch = Callable[[Iterable[int], str, int], Iterable[int]]  # indices, a title, how many → the same indices

LONELY = "the only one of its class"


@dataclass(frozen=True)
class Plan:
    """Which images of a part are used.

    Attributes:
        kept: Indices in the part, ascending.
        labels: Of those.
        left_out: Why others are not → how many.
    """

    kept: tuple[int, ...]
    labels: tuple[int, ...]
    left_out: dict[str, int]

    @property
    def members(self) -> dict[int, list[int]]:
        """Class → positions in ``kept``, classes ascending."""
        found: dict[int, list[int]] = {label: [] for label in sorted(set(self.labels))}
        for position, label in enumerate(self.labels):
            found[label].append(position)
        return found


@dataclass(frozen=True, eq=False)
class CutOut:
    """An image with the foreground that is cut out of it.

    Attributes:
        image: uint8 ``[3, H, W]``.
        mask: bool ``[H, W]``.
        label: The class of the foreground.
    """

    image: Tensor
    mask: Tensor
    label: int


def unwatched(indices: Iterable[int], title: str, total: int) -> Iterable[int]:
    """No progress."""
    return indices


class NotUsableError(Exception):
    """Why an image is left out."""


class CutOutVariants(VariantSource):
    """The variants of a source whose samples have ``objects``, made from pixels and masks.

    As in the release, images are cropped to a square first, and what surrounds a pasted foreground is another
    image's "only_bg_t": its own foreground's box is filled with tiles of its background. An image has the
    label of its sample, or the only one of its several labels that holds; but where the opened part has a
    method ``object_labels(index)``, that of its largest object.

    Left out are images without a label or an object, with too small a foreground or too large a box, more
    than half outside the crop, and the only ones of their class.

    Args:
        source: The images.
        selected: Which variant this is.
        size: Side of the images: the shorter side is resized to it and the middle is cropped. None keeps
            images as they are; foregrounds and backgrounds must then have one size.
        objects: "largest" = the object with most pixels is the foreground; "union" = all objects with its
            label, or all there are where objects have no labels of their own.
        min_area: Smallest share of the pixels that the foreground may have.
        max_box: Largest share of the pixels that the box around it may have; 0.9 in the release.
        seed: Of the choice of backgrounds.

    Raises:
        UserError: If an option is out of range.

    Source: Xiao et al. (2020), *Noise or Signal: The Role of Image Backgrounds in Object Recognition*.
    """

    def __init__(
        self,
        source: ImageSource,
        selected: str = "original",
        *,
        size: int | None = 224,
        objects: Objects = "largest",
        min_area: float = 0.01,
        max_box: float = 0.9,
        seed: int = 0,
    ) -> None:
        check_variant(selected)
        if size is not None and size < 1:
            raise UserError(f"size must be at least 1 pixel, or null, got {size}")
        if objects not in ("largest", "union"):
            raise UserError(f"objects must be largest or union, got {objects!r}")
        if not 0.0 <= min_area < max_box <= 1.0:
            raise UserError(
                f"min_area and max_box must satisfy 0 <= min_area < max_box <= 1, got {min_area}, {max_box}"
            )
        self.source = source
        self.selected = selected
        self.size = size
        self.objects = objects
        self.min_area = min_area
        self.max_box = max_box
        self.seed = seed
        self.whole = size is not None  # cropped by us
        self._opened: dict[Split, tuple[ImageSource, Plan]] = {}  # shared by all variants of this source

    @property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        """Of the source."""
        return self.source.class_names

    def variants(self, split: Split) -> tuple[str, ...]:
        """All of them."""
        return tuple(VARIANTS)

    def variant(self, name: str) -> "CutOutVariants":
        """See :meth:`~dppmask.data.variants.VariantSource.variant`."""
        check_variant(name)
        other = copy.copy(self)
        other.selected = name
        vars(other).pop("_train", None)  # opened of this variant, not of the other
        return other

    def split(self, name: Split) -> "_CutOutPart":
        """Open a part; the first time, all its images are read to see which can be used.

        Raises:
            UserError: If there is no such part, or too few of its images can be used.
        """
        images, plan = self.plan(name)
        return _CutOutPart(self, images, plan)

    def plan(self, split: Split, watch: Watch = unwatched) -> tuple[ImageSource, Plan]:
        """An opened part of the source, and which of its images are used.

        Args:
            split: Its name.
            watch: Reports progress.

        Raises:
            UserError: As :meth:`split`.
        """
        if split not in self._opened:
            images = self.source.split(split)
            indices = watch(range(len(images)), f"foregrounds of {split}", len(images))
            plan = self._choose(images, indices)
            if len(plan.members) < 2:
                reasons = ", ".join(f"{number} {reason}" for reason, number in plan.left_out.items())
                raise UserError(
                    "background variants need usable images of at least 2 classes, "
                    f"got {len(plan.members)} (left out: {reasons or 'none'})"
                )
            self._opened[split] = images, plan
        return self._opened[split]

    def cut_out(self, images: ImageSource, index: int) -> CutOut:
        """One image with its foreground, cropped.

        Raises:
            NotUsableError: If it has none, or one of the wrong size.
        """
        sample = images[index]
        if sample.sample_id != index:
            raise NotUsableError("unreadable")
        mask, label = choose_foreground(sample, _object_labels(images, index), self.objects)
        image, inside = sample.image, mask
        if self.size is not None:
            image, inside = crop(image, mask, self.size)
        self._check(mask, inside)
        return CutOut(image, inside, label)

    def _check(self, mask: Tensor, inside: Tensor) -> None:
        """Judge a foreground before and after the crop."""
        share = inside.double().mean().item()
        if share < max(self.min_area, 1e-12):
            raise NotUsableError("with too small a foreground")
        if Box.around(inside).area > self.max_box * inside.numel():
            raise NotUsableError("with too large a box around the foreground")
        if self.size is None:
            return
        scale = (self.size / min(mask.shape)) ** 2  # how much the crop enlarges an area
        if inside.sum() < 0.5 * scale * mask.sum():
            raise NotUsableError("with more than half of the foreground cropped off")

    def _choose(self, images: ImageSource, indices: Iterable[int]) -> Plan:
        left_out: Counter[str] = Counter()
        usable: dict[int, int] = {}
        for index in indices:
            try:
                usable[index] = self.cut_out(images, index).label
            except NotUsableError as reason:
                left_out[str(reason)] += 1
        frequency = Counter(usable.values())
        kept = {index: label for index, label in usable.items() if frequency[label] > 1}
        if lonely := len(usable) - len(kept):
            left_out[LONELY] = lonely
        return Plan(tuple(kept), tuple(kept.values()), dict(left_out))


class _CutOutPart(VariantPart):
    """One variant of the usable images of a part.

    Args:
        source: How images are cut out, and which variant this is.
        images: The part they come from.
        plan: Which of them are used.
    """

    def __init__(self, source: CutOutVariants, images: ImageSource, plan: Plan) -> None:
        self.source = source
        self.images = images
        self.plan = plan
        self.whole = source.whole
        self.class_names = images.class_names
        self._members = plan.members

    def __len__(self) -> int:
        return len(self.plan.kept)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        cut_out = self._cut_out(index)
        image = self._compose(index, cut_out)
        return Sample(image, cut_out.label, objects=cut_out.mask[None], sample_id=index)

    def label(self, index: int) -> int:
        """See :meth:`~dppmask.data.variants.VariantPart.label`."""
        return self.plan.labels[index]

    def foreground(self, index: int) -> str:
        """The index of the image in the part it comes from, and the name of its file if it has one."""
        number = self.plan.kept[index]
        path = getattr(self.images, "path", None)
        return f"{number:06d}_{path(number).stem.replace('_bg_', '-bg-')}" if path else f"{number:06d}"

    def background(self, index: int) -> str | None:
        """The same for the image whose background it is."""
        return self.foreground(self.partner(index)) if self.source.selected in MIXED else None

    def mask(self, index: int) -> Tensor:
        """See :meth:`~dppmask.data.variants.VariantPart.mask`."""
        return self._cut_out(index).mask

    def partner(self, index: int) -> int:
        """The image whose background a mixed one gets: another of the class that the variant asks for."""
        variant = self.source.selected
        generator = fold_in(self.source.seed, MIXED.index(variant), self.plan.kept[index])
        label = background_class(variant, self.label(index), list(self._members), generator)
        return draw([other for other in self._members[label] if other != index], generator)

    def _cut_out(self, index: int) -> CutOut:
        return self.source.cut_out(self.images, self.plan.kept[index])

    def _compose(self, index: int, own: CutOut) -> Tensor:
        variant = self.source.selected
        if variant == "original":
            return own.image
        if variant == "only_fg":
            return keep_foreground(own.image, own.mask)
        if variant == "no_fg":
            return remove_foreground(own.image, own.mask)
        if variant == "only_bg_b":
            return blacken_box(own.image, Box.around(own.mask))
        if variant == "only_bg_t":
            return tile_box(own.image, Box.around(own.mask))
        other = self._cut_out(self.partner(index))
        if other.image.shape != own.image.shape:
            raise UserError("size must be given where images have several sizes; 224 in the release")
        return paste(own.image, own.mask, tile_box(other.image, Box.around(other.mask)))


def choose_foreground(
    sample: Sample, object_labels: Sequence[int] | None, objects: Objects
) -> tuple[Tensor, int]:
    """The foreground of an image, bool ``[H, W]``, and its class.

    Args:
        sample: With masks of its objects.
        object_labels: The class of each, or None.
        objects: See :class:`CutOutVariants`.

    Raises:
        NotUsableError: If there is no object or no class.
    """
    masks = sample.objects
    if masks is None or not masks.any():
        raise NotUsableError("without an object mask")
    largest = int(masks.flatten(1).sum(1).argmax())
    label = _only_label(sample) if object_labels is None else object_labels[largest]
    if objects == "largest":
        return masks[largest], label
    if object_labels is None:
        return masks.any(0), label
    return masks[[other == label for other in object_labels]].any(0), label


def _only_label(sample: Sample) -> int:
    """The class of an image without a class per object."""
    if sample.label is not None:
        return sample.label
    if sample.labels is None or sample.labels.sum() != 1:
        raise NotUsableError("without exactly one class")
    return int(sample.labels.nonzero())


def crop(image: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Resize the shorter side and cut out the middle, of an image ``[3, H, W]`` and its mask ``[H, W]``."""
    image = F.resize(image, [size], InterpolationMode.BICUBIC, antialias=True)
    resized = F.resize(mask[None].to(torch.uint8), [size], InterpolationMode.NEAREST_EXACT)
    return F.center_crop(image, [size, size]), F.center_crop(resized, [size, size])[0].bool()


def _object_labels(images: ImageSource, index: int) -> Sequence[int] | None:
    find = getattr(images, "object_labels", None)
    return None if find is None else find(index)
