"""Greedy MAP inference: a diverse subset, one item at a time."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dppmask.dpp.backends import ops
from dppmask.dpp.checks import as_features, as_square, can_look_at, check_finite, check_size, no_autocast
from dppmask.dpp.kernels import GROUP_NUMBERS, gaussian_kernel, points_and_rate
from dppmask.dpp.threads import shares, spread

LARGEST_KERNEL = 1024  # items from which on a GPU, or torch alone, no longer forms the kernel first


class GreedySelection(NamedTuple):
    """What :func:`greedy_map` picked.

    Attributes:
        items: int64 ``[..., k]`` in the order of picking, -1 after the last pick.
        gains: ``[..., k]``, the marginal gain d² = det L_(S ∪ i) / det L_S of each pick, 0 after the last.
        num_picked: int64 ``[...]``.
    """

    items: Tensor
    gains: Tensor
    num_picked: Tensor


@torch.no_grad()
def greedy_map(
    L: Tensor, k: int, *, threshold: float | Tensor = 0.0, first: Tensor | None = None
) -> GreedySelection:
    """Pick up to ``k`` items, each the one that multiplies det L_S most; ties go to the lowest index.

    A row stops, for good, when its best gain is at most ``max(threshold, N · eps · max diag L)``: below the
    second bound a gain is rounding error. So repeated items and singular kernels end early rather than being
    picked twice. Rows with fewer picks are prefixes of the rows that a lower threshold or a larger ``k``
    gives. Does not wait for the device, compiles and captures. Cost O(N k²) per kernel, memory O(N k).

    Args:
        L: Likelihood kernel ``[..., N, N]``, symmetric and positive semi-definite.
        k: The most items to pick, from 0 to N.
        threshold: The purge ratio τ: stop when the best gain falls to it. The first pick obeys it too. One
            number for all rows, which may be a tensor without dimensions, or a tensor ``[...]``.
        first: int64 ``[...]``, the first item of each row; None = the one with the largest diagonal entry.
            Where its gain is too small, nothing is picked.

    Raises:
        ValueError: If ``k`` is outside [0, N], ``threshold`` is NaN, a shape does not fit, or (looked at on
            the CPU only) ``first`` is not in [0, N - 1] or NaN or infinity in ``L`` reached a gain. A
            threshold that is a tensor is looked at on the CPU only as well.

    Source: Chen, Zhang and Zhou (2018), Algorithm 1.
    """
    L = as_square(L)
    *batch, N, _ = L.shape
    first = _checked(k, threshold, first, batch, N, L.device)
    matrices = L.reshape(-1, N, N)
    diagonal = matrices.diagonal(dim1=1, dim2=2)  # [B, N]
    check_finite(diagonal, "L")
    tolerance = _tolerance(N * torch.finfo(L.dtype).eps * diagonal.amax(1), threshold, batch)
    with no_autocast(L):
        items, gains = ops.pivoted_cholesky(matrices, k, tolerance, first)
    check_finite(gains, "L")  # a NaN in the row of a pick shows in a gain; to read all of L costs more
    return _selection(items, gains, tolerance, batch)


@torch.no_grad()
def greedy_map_gaussian(
    features: Tensor,
    k: int,
    *,
    bandwidth: float = 1.0,
    normalize: bool = True,
    threshold: float | Tensor = 0.0,
    first: Tensor | None = None,
) -> GreedySelection:
    """``greedy_map(gaussian_kernel(features))`` from the features, without the kernel where that is cheaper.

    Only the rows of the picks are ever needed. Many items need memory O(N (k + D)) and time O(N k (k + D))
    per set of features this way, where the kernel alone would take N²; a GPU forms the kernel of up to 1024
    items all the same, in one matrix product.

    Args:
        features: ``[..., N, D]``; half precision is promoted to float32.
        bandwidth: σ > 0 of the kernel.
        normalize: Scale each row to unit length first; a zero row stays zero.
        k: The most items to pick, from 0 to N.
        threshold: As in :func:`greedy_map`.
        first: As in :func:`greedy_map`.

    Raises:
        ValueError: As in :func:`greedy_map`, or if the bandwidth is not positive, or a feature is not finite
            (looked at on the CPU only).
    """
    features = as_features(features)
    *batch, N, D = features.shape
    if ops.backend(features, N) != "numba" and N <= LARGEST_KERNEL:
        L = gaussian_kernel(features, bandwidth=bandwidth, normalize=normalize)
        return greedy_map(L, k, threshold=threshold, first=first)
    first = _checked(k, threshold, first, batch, N, features.device)
    images = features.reshape(-1, N, D)
    rounding = images.new_full(images.shape[:1], N * torch.finfo(images.dtype).eps)
    tolerance = _tolerance(rounding, threshold, batch)

    def pick(rows: slice) -> tuple[Tensor, Tensor]:
        points, rate = points_and_rate(images[rows], bandwidth, normalize=normalize)
        chosen = None if first is None else first[rows]
        return ops.pivoted_cholesky_gaussian(points, rate, k, tolerance[rows], chosen)

    with no_autocast(features):
        items, gains = zip(*spread(pick, _groups(images)), strict=True)
    return _selection(torch.cat(items), torch.cat(gains), tolerance, batch)


def _groups(images: Tensor) -> list[slice]:
    """Images worked on together: on the CPU few, so that their unit rows stay in the cache."""
    B, N, D = images.shape
    if B == 0 or not can_look_at(images):
        return [slice(None)]
    return shares(B, at_most=GROUP_NUMBERS // (N * D))


def _checked(
    k: int, threshold: float | Tensor, first: Tensor | None, batch: list[int], N: int, device: torch.device
) -> Tensor | None:
    """``first`` with one batch dimension, after a look at the options."""
    check_size(k, N)
    _check_threshold(threshold, batch)
    if first is None:
        return None
    if list(first.shape) != batch or first.dtype != torch.int64:
        raise ValueError(
            f"first must be int64 of shape {batch}, got {first.dtype} of shape {list(first.shape)}"
        )
    if can_look_at(first) and first.numel() and not 0 <= int(first.min()) <= int(first.max()) < N:
        raise ValueError(f"first must be in [0, {N - 1}], got {int(first.min())} to {int(first.max())}")
    return first.to(device, non_blocking=True).reshape(-1)


def _check_threshold(threshold: float | Tensor, batch: list[int]) -> None:
    if isinstance(threshold, Tensor):
        shape = list(threshold.shape)
        if shape and shape != batch:
            raise ValueError(f"threshold must be a number or have shape {batch}, got {shape}")
        is_nan = can_look_at(threshold) and bool(threshold.isnan().any())
    else:
        is_nan = math.isnan(threshold)
    if is_nan:
        raise ValueError("threshold must be a number, got nan")


def _tolerance(rounding: Tensor, threshold: float | Tensor, batch: list[int]) -> Tensor:
    """The gain ``[B]`` at which a row stops: its threshold, but at least that of rounding errors ``[B]``."""
    if isinstance(threshold, Tensor):
        return rounding.maximum(threshold.to(rounding, non_blocking=True).expand(batch).reshape(-1))
    return rounding.clamp(min=threshold)


def _selection(items: Tensor, gains: Tensor, tolerance: Tensor, batch: list[int]) -> GreedySelection:
    """What was picked before the first gain ``[B, k]`` at or below the tolerance ``[B]``."""
    k = items.shape[1]
    picked = (gains > tolerance[:, None]).long().cumprod(1).bool()  # [B, k]
    return GreedySelection(
        items.where(picked, -1).reshape(*batch, k),
        gains.where(picked, 0).reshape(*batch, k),
        picked.sum(1).reshape(batch),
    )
