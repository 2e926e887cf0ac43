"""Draws of a DPP item by item, in plain torch operations: batched and blocked, for any device."""

import torch
from torch import Tensor

from dppmask.dpp.checks import can_look_at

BLOCK = 16  # items decided before the rest hears of them, by one matrix product
GROUP_NUMBERS = {"cpu": 2**22}  # numbers of the kernels that are worked on at once
MOST_NUMBERS = 2**28


def sequential_draws(
    K: Tensor, uniforms: Tensor, size: int | Tensor, active: Tensor
) -> tuple[Tensor, Tensor]:
    """For each image the first of R draws of its DPP that has ``size`` items.

    Args:
        K: Marginal kernels ``[B, N, N]``, float32 or float64.
        uniforms: ``[B, R, N]`` in [0, 1); row r decides draw r.
        size: Number of items, or int64 ``[B]``.
        active: bool ``[B]``; nothing is found for the other images.

    Returns:
        bool ``[B, N]``, empty where nothing was found, and bool ``[B]``: whether something was.
    """
    B, _, N = uniforms.shape
    limit = GROUP_NUMBERS.get(K.device.type, MOST_NUMBERS)
    chosen = torch.zeros(B, N, dtype=torch.bool, device=K.device)
    found = torch.zeros_like(active)
    for group in uniforms.split(max(1, limit // max(1, K.numel())), dim=1):  # [B, r, N]
        if can_look_at(active) and not (active & ~found).any():
            break
        repeated = K.repeat_interleave(group.shape[1], dim=0)
        draws = _draw_in_place(repeated, group.reshape(-1, N)).reshape(group.shape)
        fits = draws.sum(2) == torch.as_tensor(size, device=K.device)[..., None]  # [B, r]
        first = fits.to(torch.uint8).argmax(1)
        new = active & ~found & fits.any(1)
        chosen |= new[:, None] & draws.gather(1, first[:, None, None].expand(-1, 1, N))[:, 0]
        found |= new
    return chosen, found


def sequential_sample(K: Tensor, uniforms: Tensor) -> Tensor:
    """One draw of each DPP, of whatever size: ``[B, N, N]``, ``[B, N]`` → bool ``[B, N]``."""
    return _draw_in_place(K.clone(), uniforms)


def _draw_in_place(K: Tensor, uniforms: Tensor) -> Tensor:
    """A draw from each marginal kernel ``[D, N, N]``, which is overwritten; bool ``[D, N]``.

    Source: Poulson (2020), *High-performance sampling of generic determinantal point processes*.
    """
    N = K.shape[1]
    parts = []
    for start in range(0, N, BLOCK):
        end = min(start + BLOCK, N)
        block = K[:, start:end, start:end].contiguous()
        chosen, pivots = _draw_block(block, uniforms[:, start:end])
        parts.append(chosen)
        if end < N:
            panel = torch.linalg.solve_triangular(
                block, K[:, start:end, end:], upper=False, unitriangular=True
            )  # [D, block, rest]
            K[:, end:, end:].baddbmm_((panel / pivots[:, :, None]).mT, panel, alpha=-1)
    return torch.cat(parts, dim=1)


def _draw_block(K: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """The draw of a few items; ``K [D, n, n]`` gets the unit lower factor of K - diag(1 where absent).

    Returns:
        bool ``[D, n]`` and the pivots ``[D, n]``: a chosen item's chance, an absent item's chance less 1.
    """
    decisions, pivots = [], []
    for item in range(K.shape[1]):
        chance = K[:, item, item]
        chosen = uniforms[:, item] < chance
        pivot = torch.where(chosen, chance, chance - 1)
        column = K[:, item + 1 :, item] / pivot[:, None]
        K[:, item + 1 :, item + 1 :].baddbmm_(column[:, :, None], K[:, item, None, item + 1 :], alpha=-1)
        K[:, item + 1 :, item] = column
        decisions.append(chosen)
        pivots.append(pivot)
    return torch.stack(decisions, dim=1), torch.stack(pivots, dim=1)
