"""Draws of a DPP item by item: each Triton program eliminates one kernel at a time."""

import torch
import triton
import triton.language as tl
from torch import Tensor

PANEL = 16  # items decided before the rest hears of them: the smallest side of a product on tensor cores
SCRATCH_NUMBERS = 2**24  # 64 MiB: room for as many programs as a large GPU runs at a time for 196 items


def sequential_draws(
    K: Tensor, uniforms: Tensor, size: int | Tensor, active: Tensor
) -> tuple[Tensor, Tensor]:
    """For each image the first of R draws of its DPP that has ``size`` items; does not wait for the device.

    Item i is taken where ``u_i < p_i``, its chance given what became of the items before it. An LDLᵀ
    factorisation of K that uses the pivot p_i for an item taken, p_i - 1 for another, meets these chances on
    its diagonal. Cost N³ / 3 a draw. Which draws are run depends on timing, as those after one that fits are
    skipped; the result does not. Scratch: B N² numbers or 64 MiB, whichever is more.

    Args:
        K: Marginal kernels, float32 ``[B, N, N]``.
        uniforms: ``[B, R, N]`` in [0, 1), float32 or float64; row r decides draw r.
        size: Number of items, or int64 ``[B]``.
        active: bool ``[B]``; nothing is found for the other images, nor where K is NaN.

    Returns:
        bool ``[B, N]``, empty where nothing was found, and bool ``[B]``: whether something was.

    Source: Poulson (2020), *High-performance sampling of generic determinantal point processes*; Launay,
        Galerne and Desolneux (2020), *Exact sampling of determinantal point processes without
        eigendecomposition*.
    """
    B, R, N = uniforms.shape
    if B == 0 or R == 0:
        return torch.zeros(B, N, dtype=torch.bool, device=K.device), torch.zeros_like(active)
    if isinstance(size, int):
        size = torch.full((B,), size, device=K.device)
    stride = triton.cdiv(N, PANEL) * PANEL
    programs = min(B * R, max(1, max(B * N * N, SCRATCH_NUMBERS) // (N * stride)))
    factor = torch.empty(programs, N, stride, dtype=torch.float32, device=K.device)
    taken = torch.empty(B, R, N, dtype=torch.uint8, device=K.device)
    first = torch.where(active, R, -1)  # [B], lowest draw that fits; an image left out wants no more draws
    _draw_kernel[(programs,)](
        K.contiguous(),
        uniforms.contiguous(),
        size.contiguous(),
        first,
        torch.zeros(1, dtype=torch.int32, device=K.device),
        factor,
        taken,
        B,
        R,
        N,
        stride,
        PANEL=PANEL,
        PAST=32,
        WIDTH=64,
        num_warps=4,
        num_stages=2,
        maxnreg=168,  # three programs on a multiprocessor instead of two
        enable_fp_fusion=True,
    )
    found = active & (first < R)
    index = first.clamp(0, R - 1)[:, None, None].expand(B, 1, N)
    return (taken.gather(1, index)[:, 0] == 1) & found[:, None], found


@triton.jit(do_not_specialize=["B", "R"])
def _draw_kernel(
    K, uniforms, size, first, queue, factor, taken, B, R, N, stride,
    PANEL: tl.constexpr, PAST: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Programs take one draw after the other from a queue: the first draw of every image, then the second."""
    factor += tl.program_id(0).to(tl.int64) * N * stride
    task = tl.atomic_add(queue, 1, sem="relaxed")
    while task < B * R:
        draw = (task // B).to(tl.int64)
        image = (task % B).to(tl.int64)
        if tl.load(first + image, volatile=True) > draw:
            wanted = tl.load(size + image)
            row = image * R + draw
            count = _draw(
                K + image * N * N, uniforms + row * N, taken + row * N, wanted, factor, N, stride,
                PANEL, PAST, WIDTH,
            )  # fmt: skip
            if count == wanted:
                tl.atomic_min(first + image, draw, sem="relaxed")
        task = tl.atomic_add(queue, 1, sem="relaxed")


@triton.jit
def _draw(
    K, uniforms, taken, wanted, factor, N, stride,
    PANEL: tl.constexpr, PAST: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Take or leave the items of an image in order, while ``wanted`` can be met; returns how many are taken.

    Left behind in ``factor``: what row i was when i was decided, right of its panel, and its inverse pivot on
    the diagonal.
    """
    count = 0
    start = 0
    while (start < N) & (count <= wanted) & (count + N - start >= wanted):
        item = start + tl.arange(0, PANEL)
        block = _load_tile(K, item, item, N)
        block = _subtract_past(block, factor, item, item, start, stride, PAST)
        noise = tl.load(uniforms + item, mask=item < N, other=1.0)
        elimination, inverse, chosen = _decide(block, noise, PANEL)
        tl.store(taken + item, chosen.to(tl.uint8), mask=item < N)
        tl.store(factor + item * (stride + 1), inverse, mask=item < N)
        count += tl.sum(tl.where(inverse == inverse, chosen, N + 1))  # too many, if NaN got in
        for left in range(start + PANEL, N, WIDTH):
            column = left + tl.arange(0, WIDTH)
            rows = _load_tile(K, item, column, N)
            rows = _subtract_past(rows, factor, item, column, start, stride, PAST)
            rows = tl.dot(elimination, rows, input_precision="tf32x3")
            inside = (item[:, None] < N) & (column[None, :] < stride)
            tl.store(factor + item[:, None] * stride + column[None, :], rows, mask=inside)
        tl.debug_barrier()  # later panels read what other threads have just stored
        start += PANEL
    return count


@triton.jit
def _load_tile(K, row, column, N):
    inside = (row[:, None] < N) & (column[None, :] < N)
    return tl.load(K + row[:, None] * N + column[None, :], mask=inside, other=0.0)


@triton.jit
def _subtract_past(tile, factor, row, column, start, stride, PAST: tl.constexpr):
    """Entries ``[row, column]`` of K less what the items before ``start`` explain."""
    for begin in range(0, start, PAST):
        past = begin + tl.arange(0, PAST)
        inverse = tl.load(factor + past * (stride + 1), mask=past < start, other=0.0)
        inside = (past[:, None] < start) & (row[None, :] < stride)
        left = tl.load(factor + past[:, None] * stride + row[None, :], mask=inside, other=0.0)
        inside = (past[:, None] < start) & (column[None, :] < stride)
        right = tl.load(factor + past[:, None] * stride + column[None, :], mask=inside, other=0.0)
        tile = tl.dot(tl.trans(left * -inverse[:, None]), right, tile, input_precision="tf32x3")
    return tile


@triton.jit
def _decide(block, noise, PANEL: tl.constexpr):
    """Eliminate a panel's own block, deciding on each item when its pivot is known.

    Returns:
        The unit lower triangular matrix that eliminates, the inverse pivots, and 1 for each item taken.
    """
    index = tl.arange(0, PANEL)
    elimination = tl.where(index[:, None] == index[None, :], 1.0, 0.0)
    inverse = tl.zeros([PANEL], tl.float32)
    chosen = tl.zeros([PANEL], tl.int32)
    for step in range(PANEL):
        here = index == step
        row = tl.sum(tl.where(here[:, None], block, 0.0), 0)
        column = tl.sum(tl.where(here[None, :], block, 0.0), 1)
        take = noise < row  # as all of this vector, of meaning where the step is
        pivot = tl.sum(tl.where(here, tl.where(take, row, row - 1.0), 0.0))
        inverse = tl.where(here, 1.0 / pivot, inverse)
        chosen = tl.where(here & take, 1, chosen)
        weight = tl.where(index > step, column / pivot, 0.0)
        elimination -= weight[:, None] * tl.sum(tl.where(here[:, None], elimination, 0.0), 0)[None, :]
        block -= weight[:, None] * row[None, :]
    return elimination, inverse, chosen
