"""The batched loops for the CPU, compiled by numba: image by image, so that its state stays in the cache.

Same functions and contracts as in :mod:`dppmask.dpp.backends.torch_ops`. numba is optional (extra ``fast``);
this module needs it and is imported at first use only.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dppmask.dpp.backends.compiled import reordered
from dppmask.dpp.threads import shares, spread

ONE_THREAD = (
    2**26
)  # multiplications, twice over; a few milliseconds, which starting a second thread costs as well


def pivoted_cholesky(L: Tensor, k: int, tolerance: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """As :func:`torch_ops.pivoted_cholesky`; steps after the last pivot above the tolerance are left out."""
    return _spread_images(_from_kernels, (L,), k, tolerance, first)


def pivoted_cholesky_gaussian(
    points: Tensor, rate: Tensor, k: int, tolerance: Tensor, first: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As :func:`torch_ops.pivoted_cholesky_gaussian`; distances are sums of squared differences."""
    return _spread_images(_from_points, (points, rate), k, tolerance, first)


def _spread_images(
    loop: Callable[..., None],
    inputs: tuple[Tensor, ...],
    k: int,
    tolerance: Tensor,
    first: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run a compiled loop over images, on all threads that torch may use if that pays."""
    B, N = inputs[0].shape[:2]
    items = torch.zeros(B, k, dtype=torch.int64)
    gains = torch.zeros(B, k, dtype=inputs[0].dtype)
    first = torch.full((B,), -1) if first is None else first
    arrays = [_array(x) for x in (*inputs, tolerance, first, items, gains)]

    def work(images: slice) -> None:
        loop(*(array[images] for array in arrays), np.empty((k, N), arrays[0].dtype))

    few = B * N * k * k < ONE_THREAD
    spread(work, [slice(None)] if few else shares(B))
    return items, gains


def _array(x: Tensor) -> Any:
    return x.detach().contiguous().numpy()


@reordered
def _from_kernels(kernels, tolerance, first, items, gains, factor):
    row = np.empty(kernels.shape[1], kernels.dtype)
    residual = np.empty_like(row)
    for image in range(len(kernels)):
        kernel = kernels[image]
        for i in range(len(row)):
            residual[i] = kernel[i, i]
        for step in range(len(factor)):
            item = first[image] if step == 0 and first[image] >= 0 else _largest(residual)
            gain = residual[item]
            items[image, step], gains[image, step] = item, gain
            if not gain > tolerance[image]:
                break
            for i in range(len(row)):
                row[i] = kernel[item, i]
            if not _eliminate(row, residual, factor, step, item):
                gains[image, step] = np.nan
                break


@reordered
def _from_points(points, rate, tolerance, first, items, gains, factor):
    row = np.empty(points.shape[1], points.dtype)
    residual = np.empty_like(row)
    for image in range(len(points)):
        for i in range(len(row)):
            residual[i] = 1
        for step in range(len(factor)):
            item = first[image] if step == 0 and first[image] >= 0 else _largest(residual)
            gain = residual[item]
            items[image, step], gains[image, step] = item, gain
            if not gain > tolerance[image]:
                break
            _gaussian_row(points[image], item, rate[image], row)
            if not _eliminate(row, residual, factor, step, item):
                gains[image, step] = np.nan
                break


@reordered
def _largest(residual):
    """Index of the largest entry, the first of equal ones."""
    best, largest = 0, residual[0]
    for i in range(1, len(residual)):
        if residual[i] > largest:
            best, largest = i, residual[i]
    return best


@reordered
def _gaussian_row(points, item, rate, row):
    for i in range(len(row)):
        square = row.dtype.type(0)
        for d in range(points.shape[1]):
            difference = points[i, d] - points[item, d]
            square += difference * difference
        row[i] = math.exp(-rate * square)


@reordered
def _eliminate(row, residual, factor, step, item):
    """Turn a row of the kernel into row ``step`` of the factor, and take its squares off the residual.

    Returns:
        Whether the residual is free of NaN.
    """
    past = 0
    while past + 4 <= step:  # four at a time: a quarter of the loads and stores of the row
        a, b = factor[past, item], factor[past + 1, item]
        c, d = factor[past + 2, item], factor[past + 3, item]
        for i in range(len(row)):
            row[i] -= (
                a * factor[past, i]
                + b * factor[past + 1, i]
                + c * factor[past + 2, i]
                + d * factor[past + 3, i]
            )
        past += 4
    while past < step:
        a = factor[past, item]
        for i in range(len(row)):
            row[i] -= a * factor[past, i]
        past += 1
    scale = row.dtype.type(1 / math.sqrt(residual[item]))
    total = row.dtype.type(0)
    for i in range(len(row)):
        entry = row[i] * scale
        factor[step, i] = entry
        residual[i] -= entry * entry
        total += residual[i]  # NaN if one of them is: no +inf stands against the -inf of earlier picks
    residual[item] = -np.inf
    return not np.isnan(total)
