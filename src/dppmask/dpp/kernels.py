"""Likelihood kernels from patch features."""

import torch
from torch import Tensor

from dppmask.dpp.checks import as_real, check_finite, no_autocast


def gaussian_kernel(features: Tensor, *, bandwidth: float = 1.0, normalize: bool = True) -> Tensor:
    """Gaussian similarity ``exp(-‖x_i - x_j‖² / (2 σ²))`` of every two rows.

    Exactly symmetric with an exactly unit diagonal. Neither autocast nor the global matmul precision reaches
    the inner products: the errors of plain TF32, about 1e-3, would move the purge ratio.

    Args:
        features: ``[..., N, D]``; half precision is promoted to float32.
        bandwidth: σ > 0. However small or large, the result stays finite.
        normalize: Scale each row to unit length first; a zero row stays zero.

    Returns:
        ``[..., N, N]``, entries in [0, 1].

    Raises:
        ValueError: If the bandwidth is not positive, or a feature is not finite (looked at on the CPU only).
    """
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be > 0, got {bandwidth}")
    features = _as_features(features)
    with no_autocast(features):
        if normalize:
            points, scale = _unit_rows(features), features.new_ones(())
        else:
            points, scale = _bounded(features, dim=(-2, -1))
        largest = torch.finfo(features.dtype).max
        rate = (scale / bandwidth).square().clamp(max=largest) / 2
        return _squared_distances(points).mul_(-rate).exp_().to(features.dtype)


def cosine_kernel(features: Tensor) -> Tensor:
    """Cosine similarity ``x_i · x_j / (‖x_i‖ ‖x_j‖)`` of every two rows: a kernel of rank at most D.

    Exactly symmetric; the diagonal is exactly 1, or 0 where a row is zero. Precision as in
    :func:`gaussian_kernel`.

    Args:
        features: ``[..., N, D]``; half precision is promoted to float32.

    Returns:
        ``[..., N, N]``, entries in [-1, 1].

    Raises:
        ValueError: If a feature is not finite (looked at on the CPU only).
    """
    features = _as_features(features)
    with no_autocast(features):
        cosine = _gram(_unit_rows(features)).clamp(-1, 1).to(features.dtype)
        diagonal = (features != 0).any(-1).to(features.dtype)
        return torch.diagonal_scatter(cosine, diagonal, dim1=-2, dim2=-1)


def _as_features(features: Tensor) -> Tensor:
    if features.ndim < 2 or 0 in features.shape[-2:]:
        raise ValueError(f"features must have shape [..., N, D] with N, D >= 1, got {list(features.shape)}")
    features = as_real(features, "features")
    check_finite(features, "features")
    return features


def _unit_rows(x: Tensor) -> Tensor:
    """Rows of unit length; zero rows stay zero, and no square overflows or vanishes."""
    x, _ = _bounded(x, dim=(-1,))
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm > 0, norm, 1)


def _bounded(x: Tensor, *, dim: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``x / scale`` and the scale: the largest magnitude over ``dim``, or 1 where all is 0."""
    scale = x.detach().abs().amax(dim, keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    return x / scale, scale


def _squared_distances(x: Tensor) -> Tensor:
    """``‖x_i - x_j‖² ≥ 0``, exactly 0 on the diagonal and exactly symmetric."""
    gram = _gram(x)  # [..., N, N]
    square = gram.diagonal(dim1=-2, dim2=-1)  # [..., N]
    return (square[..., :, None] + square[..., None, :]).sub_(gram, alpha=2).clamp_(min=0)


def _gram(x: Tensor) -> Tensor:
    """``x xᵀ``, exactly symmetric, float32-accurate or better whatever the global matmul precision says.

    On the CPU the products of float32 rows are taken, and returned, in float64; elsewhere float64 may be
    slow or missing.
    """
    if x.dtype == torch.float32 and x.device.type != "cpu":
        return _split_gram(x)
    x = x.double()
    gram = x @ x.mT
    return (gram + gram.mT).div_(2)


def _split_gram(x: Tensor) -> Tensor:
    """``x xᵀ`` in float32 by products that lose nothing in TF32.

    ``x = high + low`` exactly, where ``high`` has the 10 explicit mantissa bits of TF32 and ``low`` is at
    most 2⁻¹⁰ of it, so that rounding ``low`` to TF32, and leaving out ``low lowᵀ``, costs 2⁻²⁰.
    """
    high = (x.detach().view(torch.int32) & ~0x1FFF).view(torch.float32)
    low = x - high
    gram, cross = high @ high.mT, high @ low.mT
    return (gram + gram.mT).div_(2).add_(cross + cross.mT)
