"""Draws of a DPP item by item, compiled for the CPU: one image after another, without Python's global lock.

The textbook carries along the Schur complement of the marginal kernel, N² numbers. What follows needs one
matrix of (items chosen so far)² numbers, which the fastest cache holds, and no marginal kernel.

Reverse the items and write α L + I = Vᵀ V with V upper triangular, so that row N - 1 - n belongs to item n.
Let B be the trailing block of V from that row on. It is the factor of a Schur complement of α L + I, so
Bᵀ B - I is the likelihood kernel of what the draw does with items 0 … n alone. Let Q be the inverse of that
kernel of items 0 … n - 1, restricted to those chosen, and v and x the entries of row n in the columns of item
n and of those chosen. Then item n is absent with chance

    1 - p = (1 + xᵀ Q x) / v²

and with y = Q x the decision adds ŷ ŷᵀ / (v² pivot) to Q: if absent, ŷ = y and pivot = p - 1; if chosen,
pivot = p and ŷ = (y, -v), for which Q grows by a row and a column of zeros and the diagonal entry -1.

The first call of a process takes a second or two, to compile or to load what an earlier one compiled.
"""

import numpy as np
import torch
from torch import Tensor

from dppmask.dpp.backends.numba_ops import compiled


def sequential_draws(factor: Tensor, uniforms: Tensor, size: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the first of R draws of its DPP that has ``size`` items.

    Args:
        factor: Float64 ``[B, N, N]``: V of the explanation above.
        uniforms: Float64 ``[B, R, N]`` in [0, 1); row r decides draw r.
        size: int64 ``[B]``.
        active: bool ``[B]``; nothing is found for the other images.

    Returns:
        bool ``[B, N]``, empty where nothing was found, and bool ``[B]``: whether something was.
    """
    B, _, N = uniforms.shape
    chosen = torch.zeros(B, N, dtype=torch.bool)
    found = torch.zeros(B, dtype=torch.bool)
    arrays = (x.contiguous().numpy() for x in (factor, uniforms, size, active))
    _first_of_size(*arrays, chosen.numpy(), found.numpy())
    return chosen, found


def sequential_sample(factor: Tensor, uniforms: Tensor) -> Tensor:
    """One draw of each DPP, of whatever size: V ``[B, N, N]`` and uniforms ``[B, N]`` → bool ``[B, N]``."""
    chosen = torch.zeros(uniforms.shape, dtype=torch.bool)
    _any_size(factor.contiguous().numpy(), uniforms.contiguous().numpy(), chosen.numpy())
    return chosen


@compiled
def _draw(factor, uniforms, least, most, items, Q, x, y, previous):
    """One draw, given up as soon as it cannot have from ``least`` to ``most`` items: then -1, else its size.

    ``items`` gets the sample, ascending; it and the other four arrays are memory for ``most`` items. What
    a step adds to Q is added when the next step reads Q: one pass over it for both.
    """
    N = len(factor)
    count = 0
    weight = 0.0
    for n in range(N):
        row = factor[N - 1 - n]
        v = row[N - 1 - n]
        for i in range(count):
            x[i] = row[N - 1 - items[i]]
            y[i] = 0.0
        for i in range(count):
            add = weight * previous[i]
            for j in range(count):
                entry = Q[i, j] + add * previous[j]
                Q[i, j] = entry
                y[j] += x[i] * entry
        norm = 0.0
        for i in range(count):
            norm += x[i] * y[i]
        absent = (1 + norm) / (v * v)
        if uniforms[n] < 1 - absent:
            if count == most:
                return -1
            for i in range(count):
                Q[count, i] = Q[i, count] = 0.0
            Q[count, count] = -1.0
            y[count] = -v
            items[count] = n
            count += 1
            weight = 1 / (v * v * (1 - absent))
        else:
            if count + N - 1 - n < least:
                return -1
            weight = -1 / (v * v * absent)
        for i in range(count):
            previous[i] = y[i]
    return count


@compiled
def _first_of_size(factor, uniforms, size, active, chosen, found):
    B, R, _ = uniforms.shape
    most = size.max() if B else 0
    items = np.empty(most, np.int64)
    Q = np.empty((most, most))
    x, y, previous = np.empty(most), np.empty(most), np.empty(most)
    for b in range(B):
        if not active[b]:
            continue
        for r in range(R):
            count = _draw(factor[b], uniforms[b, r], size[b], size[b], items, Q, x, y, previous)
            if count == size[b]:
                found[b] = True
                for i in range(count):
                    chosen[b, items[i]] = True
                break


@compiled
def _any_size(factor, uniforms, chosen):
    B, N = uniforms.shape
    items = np.empty(N, np.int64)
    Q = np.empty((N, N))
    x, y, previous = np.empty(N), np.empty(N), np.empty(N)
    for b in range(B):
        for i in range(_draw(factor[b], uniforms[b], 0, N, items, Q, x, y, previous)):
            chosen[b, items[i]] = True
