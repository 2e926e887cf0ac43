"""Example images with other backgrounds and without foreground; nothing is scored."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dppmask.data.background_builder import variant_source
from dppmask.data.base import ImageSource, Split
from dppmask.data.png import to_png
from dppmask.data.variants import VariantPart, VariantSource
from dppmask.errors import UserError
from dppmask.evaluation.base import Protocol, Result, Subject


class VariantExamples(Protocol):
    """The same foregrounds in every background variant, as pictures; reads no encoder and scores nothing.

    The table "shown" has a row for each foreground: its ``class``, and ``images``: name of the variant → a
    PNG file in base64, None where that foreground is not there.

    Args:
        num_images: How many foregrounds, evenly spread over the data.
        split: Which part of the data.

    Raises:
        UserError: If the count is below 1.

    Source: Xiao et al. (2020), *Noise or Signal: The Role of Image Backgrounds in Object Recognition*.
    """

    def __init__(self, num_images: int = 4, split: Split = "val") -> None:
        _check_count(num_images)
        self.num_images = num_images
        self.split: Split = split

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`.

        The seed is that of the choice of backgrounds, where foregrounds are cut out.
        """
        examples = background_examples(variant_source(data, seed=seed), self.num_images, split=self.split)
        written = {
            variant: [None if image is None else to_png(image) for image in images]
            for variant, images in examples.columns.items()
        }
        shown = [
            {"class": name, "images": {variant: texts[row] for variant, texts in written.items()}}
            for row, name in enumerate(examples.classes)
        ]
        return Result(self.name, metrics={}, tables={"shown": shown})


@dataclass(frozen=True, eq=False)
class Examples:
    """Foregrounds in several variants.

    Attributes:
        columns: Variant → an image uint8 ``[3, H, W]`` per row, None where that foreground is not there.
        classes: Of each row.
    """

    columns: dict[str, list[Tensor | None]]
    classes: list[str]


def background_examples(source: VariantSource, num_images: int, *, split: Split = "val") -> Examples:
    """Foregrounds evenly spread over the first variant, in all variants.

    Raises:
        UserError: If the count is below 1, or a part cannot be opened.
    """
    _check_count(num_images)
    parts = {name: source.variant(name).split(split) for name in source.variants(split)}
    first = next(iter(parts.values()))
    count = min(num_images, len(first))
    chosen = [_foreground(first, i * len(first) // count) for i in range(count)]
    names = first.class_names or []
    columns = {name: _images(part, chosen) for name, part in parts.items()}
    return Examples(columns, [names[label] for label, _ in chosen])


def _check_count(num_images: int) -> None:
    if num_images < 1:
        raise UserError(f"num_images must be at least 1, got {num_images}")


def _foreground(part: VariantPart, index: int) -> tuple[int, str]:
    return part.label(index), part.foreground(index)


def _images(part: VariantPart, foregrounds: Sequence[tuple[int, str]]) -> list[Tensor | None]:
    """The image of each foreground in one variant."""
    places = {_foreground(part, index): index for index in range(len(part))}
    return [part[places[one]].image if one in places else None for one in foregrounds]
