"""Images taken apart along a foreground mask, and put together again.

Images are uint8 ``[3, H, W]``, masks bool ``[H, W]`` with True on the foreground.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Box(NamedTuple):
    """The smallest rectangle around a foreground; row ``bottom`` and column ``right`` lie just outside."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def around(cls, mask: Tensor) -> "Box":
        """Of a mask with some foreground.

        Raises:
            ValueError: If there is none.
        """
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        if not len(rows):
            raise ValueError("a box needs some foreground, got an empty mask")
        return cls(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def paste(foreground: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """One image within the mask, another around it."""
    return torch.where(mask, foreground, background)


def keep_foreground(image: Tensor, mask: Tensor) -> Tensor:
    """The foreground on black ("only_fg")."""
    return image * mask


def remove_foreground(image: Tensor, mask: Tensor) -> Tensor:
    """Black in the shape of the foreground ("no_fg")."""
    return image * ~mask


def blacken_box(image: Tensor, box: Box) -> Tensor:
    """A black rectangle over the foreground ("only_bg_b")."""
    result = image.clone()
    result[:, box.top : box.bottom, box.left : box.right] = 0
    return result


def tile_box(image: Tensor, box: Box) -> Tensor:
    """The rectangle over the foreground filled with copies of the background ("only_bg_t").

    The copies are those of the largest strip beside the rectangle, from border to border, laid over the whole
    image from its top left corner.

    Raises:
        ValueError: If the rectangle touches all four borders.

    Source: Xiao et al. (2020), *Noise or Signal: The Role of Image Backgrounds in Object Recognition*.
    """
    height, width = image.shape[1:]
    strip = max(_strips(image, box), key=lambda tile: tile.shape[1] * tile.shape[2])
    if not strip.numel():
        raise ValueError(f"no background is left to tile: the foreground spans {height} x {width} pixels")
    rows = torch.arange(box.top, box.bottom) % strip.shape[1]
    columns = torch.arange(box.left, box.right) % strip.shape[2]
    result = image.clone()
    result[:, box.top : box.bottom, box.left : box.right] = strip[:, rows[:, None], columns]
    return result


def _strips(image: Tensor, box: Box) -> tuple[Tensor, ...]:
    """What lies above, below, left and right of a box, from border to border."""
    return image[:, : box.top], image[:, box.bottom :], image[:, :, : box.left], image[:, :, box.right :]
