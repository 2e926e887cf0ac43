"""Several crops of each image: what a method asks for, and the tensors it gets, in one order everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dppmask.errors import UserError


@dataclass(frozen=True)
class MultiCrop:
    """Which crops of each image a method wants in place of a single one.

    Attributes:
        num_global: G, large crops at the encoder's image size.
        num_local: M, small crops.
        local_size: Side of a small crop in pixels.
        local_scale: Smallest and largest share of an image that a small crop covers.
        light: How strongly brightness, contrast and sharpness are changed: 1 = as in iBOT, 0 = not at all.
        colour: Likewise saturation and hue, the loss of all colour, and solarisation; less where colour tells
            what is in an image.

    Raises:
        UserError: If a number is out of range.
    """

    num_global: int = 2
    num_local: int = 10
    local_size: int = 96
    local_scale: tuple[float, float] = (0.05, 0.25)
    light: float = 1.0
    colour: float = 1.0

    def __post_init__(self) -> None:
        if self.num_global < 1:
            raise UserError(f"num_global_crops must be at least 1, got {self.num_global}; iBOT uses 2")
        if self.num_local < 0:
            raise UserError(f"num_local_crops must be at least 0, got {self.num_local}; 0 = none")
        if self.num_local and self.local_size < 1:
            raise UserError(f"local_size must be at least 1 pixel, got {self.local_size}; iBOT uses 96")
        check_scale("local_scale", self.local_scale, example=(0.05, 0.25))
        for name in ("light", "colour"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} must be in [0, 1], got {getattr(self, name)}; 1 is as in iBOT")


@dataclass(frozen=True, eq=False)
class Views:
    """Several crops of each image, view-major: row ``g * B + b`` is crop g of image b.

    Attributes:
        global_crops: ``[G * B, C, H, W]``.
        local_crops: ``[M * B, C, h, w]`` or None.
        num_global: G.
        num_local: M.
    """

    global_crops: Tensor
    local_crops: Tensor | None = None
    num_global: int = 2
    num_local: int = 0

    def pin_memory(self) -> "Views":
        """The same in page-locked memory; the name is torch's convention."""
        local_crops = None if self.local_crops is None else self.local_crops.pin_memory()
        return Views(self.global_crops.pin_memory(), local_crops, self.num_global, self.num_local)


def check_scale(name: str, scale: Sequence[float], *, example: tuple[float, float]) -> None:
    """Refuse what are not the smallest and the largest share of an image that a crop covers.

    Args:
        name: Of the option, for the message.
        scale: What was given.
        example: What would be right.

    Raises:
        UserError: If it is not two numbers in ascending order in (0, 1].
    """
    is_pair = isinstance(scale, Sequence) and len(scale) == 2
    if not (is_pair and 0.0 < scale[0] <= scale[1] <= 1.0):
        given = tuple(scale) if isinstance(scale, Sequence) else scale
        raise UserError(
            f"{name} must be (low, high) with 0 < low <= high <= 1, got {given}; {example} would do"
        )


def whole_images(images: Tensor | Views) -> Tensor:
    """What masks are drawn for: images as they are, of views the global crops."""
    return images.global_crops if isinstance(images, Views) else images


def join_views(images: Sequence[Views]) -> Views:
    """A batch from the views of single images, all with equally many crops of equal sizes."""
    first = images[0]
    local_crops = [views.local_crops for views in images if views.local_crops is not None]
    return Views(
        stack_view_major([views.global_crops for views in images]),
        stack_view_major(local_crops) if local_crops else None,
        first.num_global,
        first.num_local,
    )


def stack_view_major(items: Sequence[Tensor]) -> Tensor:
    """B tensors ``[V, ...]``, one per image → ``[V * B, ...]``, row ``v * B + b``."""
    return torch.stack(list(items), dim=1).flatten(0, 1)
