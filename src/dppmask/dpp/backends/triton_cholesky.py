"""Pivoted Cholesky as one Triton program per image: the greedy loop without a kernel launch a step."""

import torch
import triton
import triton.language as tl
from torch import Tensor


def pivoted_cholesky(L: Tensor, k: int, tolerance: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """As :func:`dppmask.dpp.backends.torch_ops.pivoted_cholesky`, but each image stops at its tolerance.

    The gain at which it stopped, at most the tolerance or NaN, is the last one written; 0 follows.

    Args:
        L: float32 ``[B, N, N]``, N at most 1024.
        k: Number of steps.
        tolerance: float32 ``[B]``.
        first: int64 ``[B]``, the first pivot, or None for the largest.

    Returns:
        Pivots int64 ``[B, k]`` and their values d² ``[B, k]``.
    """
    B, N, _ = L.shape
    items = torch.zeros(B, k, dtype=torch.int64, device=L.device)
    gains = torch.zeros(B, k, dtype=torch.float32, device=L.device)
    if B == 0 or k == 0:
        return items, gains
    block = max(32, triton.next_power_of_2(N))
    stride = triton.cdiv(N, 16) * 16  # rows that start on 64 bytes are read four numbers at a time
    factor = torch.empty(B, k, stride, dtype=torch.float32, device=L.device)
    _pivoted_cholesky_kernel[(B,)](
        L.contiguous(),
        tolerance.contiguous(),
        None if first is None else first.contiguous(),
        factor,
        items,
        gains,
        N,
        k,
        stride,
        BLOCK=block,
        UNROLL=8,
        num_warps=min(8, max(1, block // 64)),
        num_stages=1,
        enable_fp_fusion=True,
    )
    return items, gains


@triton.jit(do_not_specialize=["k"])
def _pivoted_cholesky_kernel(
    L, tolerance, first, factor, items, gains, N, k, stride, BLOCK: tl.constexpr, UNROLL: tl.constexpr
):
    image = tl.program_id(0).to(tl.int64)
    L += image * N * N
    factor += image * k * stride
    items += image * k
    gains += image * k
    limit = tl.load(tolerance + image)
    column = tl.arange(0, BLOCK)
    residual = tl.load(L + column * (N + 1), mask=column < N, other=-float("inf"))  # d² of every item
    gain, item = _largest(residual)
    if first is not None:
        item = tl.load(first + image).to(tl.int32)
        gain = tl.sum(tl.where(column == item, residual, 0.0))
    step = 0
    while (step < k) & (gain > limit):
        tl.store(items + step, item.to(tl.int64))
        tl.store(gains + step, gain)
        row = tl.load(L + item * N + column, mask=column < N, other=0.0)
        known = tl.zeros_like(row)  # what the picks explain; summed apart, so that nothing waits for the row
        for start in range(0, step, UNROLL):  # loads of one round wait for memory together
            for offset in tl.static_range(UNROLL):
                past = start + offset
                weight = tl.load(factor + past * stride + item, mask=past < step, other=0.0)
                width = tl.where(past < step, stride, 0)
                known += weight * tl.load(factor + past * stride + column, mask=column < width, other=0.0)
        row = (row - known) * tl.rsqrt(gain)
        tl.store(factor + step * stride + column, row, mask=column < stride)
        tl.debug_barrier()  # the next step reads what other threads have just stored
        residual = tl.where(column == item, -float("inf"), residual - row * row)
        step += 1
        gain, item = _largest(residual)
    if step < k:
        tl.store(gains + step, gain)


@triton.jit
def _largest(values):
    """The largest value and the lowest index that has it; NaN if there is one, as in ``torch.max``."""
    largest, index = tl.max(tl.where(values == values, values, float("inf")), 0, return_indices=True)
    return tl.where(largest < float("inf"), largest, float("nan")), index
