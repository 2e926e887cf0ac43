"""The Gaussian kernel on tensor cores: one tile of every mirrored pair, inner products as good as float32.

A row is scaled by a power of two so that its largest magnitude lies in [2¹⁴, 2¹⁵), and split into two float16
numbers, ``x = high + low``. They hold the 22 bits that three TF32 products keep, at half their price.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

FLOAT32_MAX = tl.constexpr(torch.finfo(torch.float32).max)
TINY = torch.finfo(torch.float32).tiny


def gaussian(features: Tensor, bandwidth: float, normalize: bool) -> Tensor:
    """As :func:`dppmask.dpp.kernels.gaussian_kernel`; here too equal rows get exactly 1.

    Args:
        features: ``[B, N, D]``, float32, bfloat16 or float16.
        bandwidth: σ > 0.
        normalize: Scale each row to unit length first.

    Returns:
        float32 ``[B, N, N]``.
    """
    B, N, D = features.shape
    L = torch.empty(B, N, N, dtype=torch.float32, device=features.device)
    if B == 0:
        return L
    if features.stride(2) != 1:
        features = features.contiguous()
    peak = torch.linalg.vector_norm(features, torch.inf, dim=2, dtype=torch.float32)  # [B, N]
    image_peak = peak.amax(1)
    square = torch.empty_like(peak)
    inverse_bandwidth = 1 / bandwidth if bandwidth > TINY else math.inf
    tile = 64 if N <= 256 else 128
    tiles = triton.cdiv(N, tile)
    # two launches: the tiles on the diagonal leave behind the lengths that the others need
    for diagonal, pairs in ((True, tiles), (False, tiles * (tiles - 1) // 2)):
        if pairs == 0:
            break
        _tiles_kernel[(B * pairs,)](
            features,
            peak,
            image_peak,
            square,
            L,
            inverse_bandwidth,
            N,
            D,
            features.stride(0),
            features.stride(1),
            NORMALIZE=normalize,
            SPLIT=features.dtype == torch.float32,
            DIAGONAL=diagonal,
            TILE=tile,
            DEPTH=32,
            num_warps=tile // 16,
            num_stages=3,
            enable_fp_fusion=False,  # fused, the distance of equal rows is a rounding error and not 0
        )
    return L


@triton.jit
def _tiles_kernel(
    features, peak, image_peak, square, L, inverse_bandwidth, N, D, image_stride, row_stride,
    NORMALIZE: tl.constexpr, SPLIT: tl.constexpr, DIAGONAL: tl.constexpr,
    TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(N, TILE)
    if DIAGONAL:
        image = tl.program_id(0) // tiles
        above = tl.program_id(0) % tiles
        below = above
    else:
        pairs = tiles * (tiles - 1) // 2
        image = tl.program_id(0) // pairs
        pair = tl.program_id(0) % pairs
        above = pair % tiles
        below = (above + pair // tiles + 1) % tiles  # shifts up to half the tiles meet every pair once
    image = image.to(tl.int64)
    features += image * image_stride
    peak += image * N
    square += image * N
    row = above * TILE + tl.arange(0, TILE)
    column = below * TILE + tl.arange(0, TILE)
    row_scale = _power_of_two(tl.load(peak + row, mask=row < N, other=0.0))
    column_scale = _power_of_two(tl.load(peak + column, mask=column < N, other=0.0))

    gram = tl.zeros([TILE, TILE], tl.float32)
    for start in range(0, D, DEPTH):
        depth = start + tl.arange(0, DEPTH)
        x = _scaled_rows(features, row, depth, row_scale, N, D, row_stride)
        if DIAGONAL:
            y = x
        else:
            y = _scaled_rows(features, column, depth, column_scale, N, D, row_stride)
        gram = _add_product(gram, x, y, SPLIT)

    if DIAGONAL:
        entries = tl.where(row[:, None] == column[None, :], gram, 0.0)
        row_square = tl.sum(entries, 1)
        column_square = tl.sum(entries, 0)
        tl.store(square + row, row_square, mask=row < N)
    else:
        row_square = tl.load(square + row, mask=row < N, other=0.0)
        column_square = tl.load(square + column, mask=column < N, other=0.0)
    if NORMALIZE:
        rate = inverse_bandwidth * inverse_bandwidth
        row_unit = tl.where(row_square > 0, tl.rsqrt(row_square), 0.0)
        column_unit = tl.where(column_square > 0, tl.rsqrt(column_square), 0.0)
    else:  # lengths in units of the largest magnitude of the image
        largest = tl.load(image_peak + image)
        scale = _power_of_two(largest)
        rate = scale * inverse_bandwidth * (scale * inverse_bandwidth) + 0.0 * largest  # NaN if not finite
        row_unit = row_scale * _to_float16_range(scale) * 2.0**-28
        column_unit = column_scale * _to_float16_range(scale) * 2.0**-28
    tile = _similarity(gram, row_square, column_square, row_unit, column_unit, rate)
    _store_mirrored(L + image * N * N, tile, row, column, N, DIAGONAL)


@triton.jit
def _power_of_two(peak):
    """The largest power of two up to ``peak``, at least 2⁻¹¹³."""
    return tl.maximum(peak.to(tl.int32, bitcast=True) & 0x7F800000, 14 << 23).to(tl.float32, bitcast=True)


@triton.jit
def _to_float16_range(power):
    """``2¹⁴ / power``, exactly."""
    exponent = power.to(tl.int32, bitcast=True)
    return ((255 << 23) - (exponent - (13 << 23))).to(tl.float32, bitcast=True)


@triton.jit
def _scaled_rows(features, row, depth, scale, N, D, row_stride):
    """Float32 ``[TILE, DEPTH]``; over the whole of a row the largest magnitude lies in [2¹⁴, 2¹⁵)."""
    inside = (row[:, None] < N) & (depth[None, :] < D)
    x = tl.load(features + row[:, None].to(tl.int64) * row_stride + depth[None, :], mask=inside, other=0.0)
    return x.to(tl.float32) * _to_float16_range(scale)[:, None]


@triton.jit
def _add_product(gram, x, y, SPLIT: tl.constexpr):
    """``gram + x yᵀ``. Half precision loses nothing in one float16 number, float32 needs two."""
    x_high = x.to(tl.float16)
    y_high = y.to(tl.float16)
    if not SPLIT:
        return tl.dot(x_high, tl.trans(y_high), gram)
    x_low = (x - x_high.to(tl.float32)).to(tl.float16)
    y_low = (y - y_high.to(tl.float32)).to(tl.float16)
    part = tl.dot(x_low, tl.trans(y_high))
    part = tl.dot(x_high, tl.trans(y_low), part)
    return gram + tl.dot(x_high, tl.trans(y_high), part)  # tensor cores cut sums off, this addition rounds


@triton.jit
def _similarity(gram, row_square, column_square, row_unit, column_unit, rate):
    """``exp(-rate d² / 2)``, d² of rows times their units. Selects, where a maximum would swallow NaN."""
    # products in the same order in all three, so that they are the same number for equal rows
    row_square = row_square * row_unit * row_unit
    column_square = column_square * column_unit * column_unit
    inner = gram * row_unit[:, None] * column_unit[None, :]
    distance = row_square[:, None] + column_square[None, :] - 2.0 * inner
    distance = tl.where(distance < 0, 0.0, distance)
    rate = tl.where(rate > FLOAT32_MAX, FLOAT32_MAX, rate)
    similarity = tl.exp(-0.5 * rate * distance)
    return tl.where(similarity > 1, 1.0, similarity)


@triton.jit
def _store_mirrored(L, tile, row, column, N, DIAGONAL: tl.constexpr):
    """Write a tile and its transpose; of one on the diagonal what is above it decides."""
    inside = (row[:, None] < N) & (column[None, :] < N)
    if DIAGONAL:
        inside = inside & (row[:, None] <= column[None, :])
    tl.store(L + row[:, None].to(tl.int64) * N + column[None, :], tile, mask=inside)
    mirror = L + column[:, None].to(tl.int64) * N + row[None, :]
    tl.store(mirror, tl.trans(tile), mask=tl.trans(inside))
