"""The batched loops in plain torch operations: one batch dimension, no checks, no waiting for the device."""

from collections.abc import Callable

import torch
from torch import Tensor


def pivoted_cholesky(L: Tensor, k: int, tolerance: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """Largest pivot first, ``k`` steps of it.

    Args:
        L: ``[B, N, N]``.
        k: Number of steps.
        tolerance: ``[B]``; what follows the first pivot at or below it has no meaning.
        first: int64 ``[B]``, the first pivot, or None for the largest.

    Returns:
        Pivots int64 ``[B, k]``, all different up to the tolerance, and their values d² ``[B, k]``. A NaN that
        reached a pivot is among the values.
    """
    B, N, _ = L.shape
    rows = L.reshape(B * N, N)
    offset = torch.arange(0, B * N, N, device=L.device)  # [B]

    def write_rows(items: Tensor, out: Tensor) -> None:
        torch.index_select(rows, 0, items + offset, out=out)

    return _eliminate(write_rows, L.diagonal(dim1=1, dim2=2).clone(), k, tolerance, first)


def pivoted_cholesky_gaussian(
    points: Tensor, rate: Tensor, k: int, tolerance: Tensor, first: Tensor | None
) -> tuple[Tensor, Tensor]:
    """:func:`pivoted_cholesky` of ``exp(-rate ‖x_i - x_j‖²)``, of which only the pivots' rows are formed.

    Args:
        points: ``[B, N, D]``.
        rate: ``[B]``.
        k: As there, like all that follows.
        tolerance: ``[B]``.
        first: int64 ``[B]``, or None.
    """
    squares = points.square().sum(-1)  # [B, N]

    def write_rows(items: Tensor, out: Tensor) -> None:
        chosen = points.gather(1, items[:, None, None].expand(-1, 1, points.shape[2]))  # [B, 1, D]
        torch.bmm(chosen, points.mT, out=out[:, None])
        out.mul_(-2).add_(squares).add_(squares.gather(1, items[:, None]))  # [B, N], squared distances
        out.clamp_(min=0).scatter_(1, items[:, None], 0)
        out.mul_(-rate[:, None]).exp_()

    return _eliminate(write_rows, torch.ones_like(squares), k, tolerance, first)


def _eliminate(
    write_rows: Callable[[Tensor, Tensor], None],
    residual: Tensor,
    k: int,
    tolerance: Tensor,
    first: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The steps of :func:`pivoted_cholesky` on rows of the kernel as they are asked for.

    Args:
        write_rows: Called with items int64 ``[B]`` and a tensor ``[B, N]`` to write their rows into.
        residual: ``[B, N]``, the diagonal; changed in place into the d² of every item.
        k: As there, like all that follows.
        tolerance: ``[B]``.
        first: int64 ``[B]``, or None.
    """
    B, N = residual.shape
    smallest = tolerance[:, None].clamp(min=torch.finfo(residual.dtype).tiny)
    by_step = residual.new_empty(k, B, N)  # contiguous in what a step writes
    factor = by_step.transpose(0, 1)  # [B, k, N]
    items, gains = [residual.new_empty(B, 0, dtype=torch.int64)], [residual.new_empty(B, 0)]
    for step in range(k):
        if step == 0 and first is not None:
            item = first[:, None]
            gain = residual.gather(1, item)
        else:
            gain, item = residual.max(1, keepdim=True)  # [B, 1]
        items.append(item)
        gains.append(gain)
        row = by_step[step]
        write_rows(item[:, 0], row)
        if step > 0:
            past = factor[:, :step]
            weights = past.gather(2, item[:, :, None].expand(-1, step, -1))  # [B, step, 1]
            row[:, None].baddbmm_(weights.mT, past, alpha=-1)
        row.mul_(gain.maximum(smallest).rsqrt())
        residual.addcmul_(row, row, value=-1).scatter_(1, item, -torch.inf)
    return torch.cat(items, dim=1), torch.cat(gains, dim=1)


def eigenvector_chances(inclusion: Tensor, noise: Tensor, size: Tensor) -> Tensor:
    """The chance of each eigenvector given what became of the later ones; chosen = ``noise < chance``.

    Exactly ``size`` are chosen, as long as so many have a chance at all.

    Args:
        inclusion: ``[B, N, k]``; entry ``[b, n, j]`` is the chance of eigenvector n when j + 1 are still
            wanted from the first n + 1.
        noise: ``[B, N]``, uniform in [0, 1).
        size: int64 ``[B]``, at most k.

    Returns:
        ``[B, N]`` in [0, 1].
    """
    B, N, _ = inclusion.shape
    never = inclusion.new_zeros(B, N, 1)
    table = torch.cat([never, inclusion], dim=2)  # [B, N, k + 1]: degree 0 wants nothing more
    wanted = size[:, None]  # [B, 1]
    chance = torch.empty_like(noise)
    for n in range(N - 1, -1, -1):
        chance[:, n : n + 1] = table[:, n].gather(1, wanted)
        wanted = wanted - (noise[:, n : n + 1] < chance[:, n : n + 1]).long()
    return chance


def sample_projection(vectors: Tensor, size: Tensor, noise: Tensor) -> Tensor:
    """Sample the projection DPP spanned by orthonormal vectors, by the chain rule.

    An item's chance is its squared distance from the span of the items chosen before. That span is kept as
    an orthonormal basis, each new direction orthogonalised twice, so errors do not grow with their number.

    Args:
        vectors: ``[B, R, N]``, one in each row; those at and after ``size`` are zero.
        size: int64 ``[B]``.
        noise: ``[B, R]``, uniform in [0, 1).

    Returns:
        bool ``[B, N]`` with ``size`` items per row.

    Source: Kulesza and Taskar (2012), Algorithm 1; Gillenwater (2014), Algorithm 2.
    """
    B, R, N = vectors.shape
    tiny = torch.finfo(vectors.dtype).tiny
    below_one = 1 - torch.finfo(vectors.dtype).eps
    basis = vectors.new_zeros(B, R, R)  # directions in rows
    remaining = vectors.square().sum(1)  # [B, N], squared distances
    chosen = torch.zeros(B, N, dtype=torch.bool, device=vectors.device)
    for step in range(R):
        cumulative = remaining.cumsum(1)
        target = noise[:, step, None] * below_one * cumulative[:, -1:]
        item = torch.searchsorted(cumulative, target, right=True).clamp(max=N - 1)  # [B, 1]
        chosen |= torch.zeros_like(chosen).scatter_(1, item, (step < size)[:, None])
        direction = vectors.gather(2, item[:, None].expand(-1, R, -1)).mT  # [B, 1, R]
        past = basis[:, :step]
        for _ in range(2):
            direction = direction - (direction @ past.mT) @ past
        norm = torch.linalg.vector_norm(direction, dim=2, keepdim=True)
        direction = direction / norm.clamp(min=tiny)
        basis[:, step] = direction[:, 0]
        projection = (direction @ vectors)[:, 0]  # [B, N]
        remaining = (remaining - projection.square()).clamp_(min=0).scatter_(1, item, 0)
    return chosen
