"""Photographs with small objects: irregular pieces of one sample photograph pasted on crops of another.

The photographs are those that scikit-learn and scikit-image ship inside their packages; nothing is downloaded
or stored. It is the picture of what a mask may lose: an object of 1–3 % of the image that belongs to nothing
around it.
"""

from dataclasses import dataclass
from functools import cache
from math import pi

import skimage.data
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import Tensor

from dppmask.rng import fold_in

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass(frozen=True, eq=False)
class PastedObjects:
    """A batch of photographs, one object each.

    Attributes:
        images: float32 ``[B, 3, size, size]``, normalised with the statistics of ImageNet.
        objects: bool ``[B, size, size]``, the pixels of the object.
    """

    images: Tensor
    objects: Tensor

    def visible_share(self, masked: Tensor, grid: tuple[int, int]) -> Tensor:
        """Share of each object's pixels on visible patches, float ``[B]``, for ``masked`` bool ``[B, N]``."""
        rows, columns = grid
        size = self.objects.shape[-1]
        cells = self.objects.unflatten(1, (rows, size // rows)).unflatten(3, (columns, size // columns))
        pixels = cells.sum((2, 4)).flatten(1)  # [B, N]
        return (pixels * ~masked).sum(1) / pixels.sum(1)


@cache
def photographs() -> dict[str, Tensor]:
    """The shipped photographs, float32 ``[3, H, W]`` in [0, 1]."""
    arrays = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    arrays |= {name: getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")}
    return {name: torch.from_numpy(array.copy()).permute(2, 0, 1) / 255 for name, array in arrays.items()}


def pasted_objects(count: int, *, size: int = 224, seed: int = 0) -> PastedObjects:
    """Draw ``count`` images; background and object come from different photographs.

    Background and object are crops of 30–60 % of their photograph's short side; the object is cut out along
    an irregular outline and shrunk to a box of 14–22 % of the image's side, which is 1–2 % of its area.
    """
    pairs = [_paste_one(size, fold_in(seed, index)) for index in range(count)]
    images, objects = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return PastedObjects((images - MEAN) / STD, objects)


def _paste_one(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    names = list(photographs())
    background, source = (names[i] for i in torch.randperm(len(names), generator=generator)[:2].tolist())
    image = _random_crop(photographs()[background], size, generator)
    side = round(size * _between(0.14, 0.22, generator))
    piece = _random_crop(photographs()[source], side, generator)
    blob = _blob(side, generator)
    top, left = torch.randint(0, size - side + 1, (2,), generator=generator).tolist()
    box = image[:, top : top + side, left : left + side]
    box[:] = torch.where(blob, piece, box)
    objects = torch.zeros(size, size, dtype=torch.bool)
    objects[top : top + side, left : left + side] = blob
    return image, objects


def _random_crop(photograph: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A random square of 30–60 % of the short side, resized to ``size``."""
    height, width = photograph.shape[1:]
    side = round(min(height, width) * _between(0.3, 0.6, generator))
    top = int(_between(0, height - side, generator))
    left = int(_between(0, width - side, generator))
    crop = photograph[None, :, top : top + side, left : left + side]
    return F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]


def _blob(side: int, generator: torch.Generator) -> Tensor:
    """An irregular outline, bool ``[side, side]``: the radius is a random Fourier series of the angle."""
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = torch.atan2(y, x)
    order = torch.arange(1, 6)
    phase = 2 * pi * torch.rand(5, generator=generator)
    weight = torch.rand(5, generator=generator) / order
    wave = (weight * torch.cos(order * angle[..., None] + phase)).sum(-1)
    return (x**2 + y**2).sqrt() < 0.75 + 0.25 * wave / weight.sum()


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()
