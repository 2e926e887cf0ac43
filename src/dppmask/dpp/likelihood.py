"""Probabilities under a DPP or k-DPP: subsets, inclusion, size, and the normaliser in log space."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dppmask.dpp.checks import as_kernel, can_look_at, check_size, no_autocast
from dppmask.dpp.spectrum import decompose, eigh, rounding_noise, to_unit_diagonal


def log_prob(L: Tensor, items: Tensor, *, k: int | None = None) -> Tensor:
    """Log-probability of a subset under the DPP, or the k-DPP, of ``L``.

    ``det L_S / det(L + I)``, or ``det L_S / e_k(λ)`` for ``|S| = k`` and 0 for other sizes. Worked out in
    float64.

    Args:
        L: Likelihood kernel ``[..., N, N]``.
        items: The subset: bool ``[..., N]``, or int64 ``[..., any]`` padded with -1. Its leading dimensions
            broadcast with those of ``L``.
        k: Size of the k-DPP; None = the DPP.

    Returns:
        ``[...]`` in the precision of ``L``; ``-inf`` where L_S is singular to rounding, or the size is not
        ``k``.

    Raises:
        ValueError: If an item repeats or lies outside [-1, N - 1] (looked at on the CPU only), ``k`` is
            outside [0, N], or the numerical rank of a kernel is below ``k``, so that there is no k-DPP.
        TypeError: If ``items`` is neither bool nor int64.

    Source: Kulesza and Taskar (2012), equations 15 and 187.
    """
    L = as_kernel(L)
    N = L.shape[-1]
    members = _members(items, N).to(L.device)
    with no_autocast(L):
        values, _ = decompose(L)
        if k is None:
            log_normaliser = values.log1p().sum(-1)
        else:
            check_size(k, N)
            check_rank((values > 0).sum(-1), k)
            log_normaliser = log_esp(values.log(), k)[..., -1, -1]
        size = members.sum(-1)
        possible = size <= (values > 0).sum(-1) if k is None else size == k
        result = torch.where(possible, _log_det(L, members) - log_normaliser, -torch.inf)
    return result.to(L.dtype)


def marginal_kernel(L: Tensor) -> Tensor:
    """``K = L (L + I)⁻¹``; K_ii is the chance that item i is in the sample, det K_S that all of S is.

    Args:
        L: Likelihood kernel ``[..., N, N]``.

    Returns:
        ``[..., N, N]``, symmetric with eigenvalues in [0, 1], in the precision of ``L``.
    """
    L = as_kernel(L)
    with no_autocast(L):
        values, vectors = decompose(L)
        half = vectors * (values / (1 + values)).sqrt()[..., None, :]
        K = half @ half.mT
        return ((K + K.mT) / 2).to(L.dtype)


def expected_size(L: Tensor) -> Tensor:
    """Expected number of items of the DPP's sample, ``Σ λ / (1 + λ)``: ``[..., N, N]`` → ``[...]``."""
    L = as_kernel(L)
    values, _ = decompose(L)
    return (values / (1 + values)).sum(-1).to(L.dtype)


def log_esp(log_spectrum: Tensor, k: int) -> Tensor:
    """Log elementary symmetric polynomials of every prefix of a spectrum.

    Entry ``[..., n, j]`` is ``log e_j(λ_1, …, λ_n)``, and ``-inf`` where ``j > n``. Cost O(N k) per row.

    Args:
        log_spectrum: Log-eigenvalues ``[..., N]``; ``-inf`` marks a null direction.
        k: Highest degree, from 0 to N.

    Returns:
        ``[..., N + 1, k + 1]``.

    Raises:
        ValueError: If ``k`` is outside [0, N].

    Source: Kulesza and Taskar (2012), Algorithm 7, moved to log space.
    """
    N = log_spectrum.shape[-1]
    check_size(k, N)
    row = torch.zeros_like(log_spectrum[..., :1])  # e_0 = 1
    rows = [F.pad(row, (0, k), value=-torch.inf)]
    for n in range(N):
        degree = row.shape[-1] - 1  # min(n, k)
        with_item = row + log_spectrum[..., n, None]  # subsets that contain item n: e_1 … e_(degree + 1)
        without_item = row[..., 1:]
        mixed = torch.logaddexp(without_item, with_item[..., :degree])
        row = torch.cat([row[..., :1], mixed, with_item[..., degree:k]], dim=-1)
        rows.append(F.pad(row, (0, k + 1 - row.shape[-1]), value=-torch.inf))
    return torch.stack(rows, dim=-2)


def check_rank(rank: Tensor, k: int) -> None:
    """Raise ``ValueError`` where a numerical rank, int64 ``[...]``, is below ``k``."""
    lowest = int(rank.min()) if rank.numel() else k
    if lowest < k:
        raise ValueError(
            f"k must not exceed the numerical rank of L, got k={k} and a kernel of rank {lowest}"
        )


def _members(items: Tensor, N: int) -> Tensor:
    """The subset as bool ``[..., N]``, from either form of a subset."""
    if items.dtype == torch.bool:
        if items.shape[-1:] != (N,):
            raise ValueError(f"items must have shape [..., {N}] as a bool tensor, got {list(items.shape)}")
        return items
    if items.dtype != torch.int64:
        raise TypeError(f"items must be bool or int64, got {items.dtype}")
    if can_look_at(items) and items.numel() and not -1 <= int(items.min()) <= int(items.max()) < N:
        raise ValueError(f"items must be in [-1, {N - 1}], got {int(items.min())} to {int(items.max())}")
    count = items.new_zeros(*items.shape[:-1], N + 1)
    count = count.scatter_add(-1, items + 1, torch.ones_like(items))[..., 1:]  # slot 0 takes the padding
    if can_look_at(count) and (count > 1).any():
        raise ValueError("items must all differ within a subset, got a repeated one")
    return count > 0


def _log_det(L: Tensor, members: Tensor) -> Tensor:
    """``log det L_S`` in float64, by eigenvalues; ``-inf`` where singular to rounding."""
    inside = members[..., :, None] & members[..., None, :]
    identity = torch.eye(L.shape[-1], dtype=torch.float64, device=L.device)
    correlation, root = to_unit_diagonal(torch.where(inside, L.double(), identity))
    values, _ = eigh(correlation)  # ascending; 1 for every item outside S
    regular = values[..., 0] > rounding_noise(values, members.sum(-1), L.dtype)
    return torch.where(regular, (values.log() + 2 * root.log()).sum(-1), -torch.inf)
