"""Many masked versions of one image as points in a plane, around the whole image."""

from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from dppmask.evaluation.mask_batches import MeasuredBatch
from dppmask.evaluation.mask_grid import MaskGrid
from dppmask.evaluation.representations import Represented
from dppmask.masks import Mask

_STREAM = 11  # keeps the masks of clouds apart from others of the same seed
_DIGITS = 5  # of a coordinate, so that a record stays short

Row = dict[str, Any]


def clouds(grid: MaskGrid, repeated: MeasuredBatch, represented: Represented, *, image: int) -> list[Row]:
    """Where the masks of every ratio and strategy put one image.

    Args:
        grid: Strategies and ratios.
        repeated: One image, as often as each strategy draws a mask of it.
        represented: The same as an encoder sees it.
        image: Number of the image.

    Returns:
        A row for each ratio and strategy, with the lists ``x`` and ``y``: coordinates along the two principal
        axes of all points of that ratio, the whole image among them, which is the origin. ``lost`` says which
        masks lose an object, None where that is not known; ``explained`` is the share of the squared spread
        of all points that lies in the plane.
    """
    masks = {setting: mask for setting, (mask,) in grid.draw(repeated.context, 1, _STREAM, image).items()}
    rows = []
    for mask_ratio, settings in groupby(masks, key=lambda setting: setting.mask_ratio):
        moved = {
            setting: (represented.masked([masks[setting]])[0] - represented.whole).double().cpu()
            for setting in settings
        }
        origin = torch.zeros(1, represented.whole.shape[1], dtype=torch.float64)
        axes, explained = principal_plane(torch.cat([origin, *moved.values()]))
        rows += [
            {"image": image, "strategy": setting.strategy, "mask_ratio": mask_ratio, "explained": explained}
            | _points(offsets @ axes)
            | {"lost": _lost(repeated, masks[setting])}
            for setting, offsets in moved.items()
        ]
    return rows


def principal_plane(points: Tensor) -> tuple[Tensor, float]:
    """The two directions in which points vary most, and the share of their squared spread along both.

    Args:
        points: float64 ``[P, D]``, P and D at least 2.

    Returns:
        Orthonormal directions ``[D, 2]``, the largest entry of each positive; and the share, 1 where all
        points are the same.
    """
    _, lengths, directions = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    axes = directions[:2].mT
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    spread = lengths.square()
    total = spread.sum().item()
    return axes * signs, spread[:2].sum().item() / total if total else 1.0


def _points(plane: Tensor) -> Row:
    """Points ``[P, 2]`` as lists."""
    x, y = ([float(f"{value:.{_DIGITS}g}") for value in column] for column in plane.mT.tolist())
    return {"x": x, "y": y}


def _lost(repeated: MeasuredBatch, mask: Mask) -> list[bool] | None:
    return None if repeated.objects is None else repeated.objects.lose_any(mask).tolist()
