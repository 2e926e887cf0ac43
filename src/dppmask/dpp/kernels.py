"""Likelihood kernels from patch features."""

from collections.abc import Callable

import torch
from torch import Tensor

from dppmask.dpp.backends import ops
from dppmask.dpp.checks import as_features, no_autocast
from dppmask.dpp.threads import spread

GROUP_NUMBERS = 2**18  # float64 numbers of one temporary on the CPU: 2 MiB, what a core's cache holds


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

    def kernel(x: Tensor) -> Tensor:
        points, rate = points_and_rate(x, bandwidth, normalize=normalize)
        return torch.exp(-rate[..., None, None] * _squared_distances(points))

    features = as_features(features)
    has_gradient = torch.is_grad_enabled() and features.requires_grad
    if ops.backend(features, features.shape[-2]) == "triton" and not has_gradient:
        check_bandwidth(bandwidth)
        L = ops.gaussian(features.reshape(-1, *features.shape[-2:]), bandwidth, normalize)
        return L.reshape(*features.shape[:-1], features.shape[-2])
    return _apply(kernel, features)


def points_and_rate(x: Tensor, bandwidth: float, *, normalize: bool) -> tuple[Tensor, Tensor]:
    """Points and rates such that the kernel of ``x`` is ``exp(-rate ‖p_i - p_j‖²)``, all of moderate size.

    Args:
        x: ``[..., N, D]``, float32 or float64.
        bandwidth: σ > 0.
        normalize: Whether rows are scaled to unit length.

    Returns:
        ``[..., N, D]`` and ``[...]``.

    Raises:
        ValueError: If the bandwidth is not positive.
    """
    check_bandwidth(bandwidth)
    points, scale = (_unit_rows(x), x.new_ones(x.shape[:-2])) if normalize else _bounded(x, dim=(-2, -1))
    rate = (scale.reshape(x.shape[:-2]) / bandwidth).square().clamp(max=torch.finfo(x.dtype).max) / 2
    return points, rate


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

    def kernel(x: Tensor) -> Tensor:
        diagonal = (x != 0).any(-1).to(x.dtype)  # [..., N]
        return torch.diagonal_scatter(
            (_twice_gram(_unit_rows(x)) / 2).clamp(-1, 1), diagonal, dim1=-2, dim2=-1
        )

    return _apply(kernel, as_features(features))


def check_bandwidth(bandwidth: float) -> None:
    """Raise ``ValueError`` unless σ is positive."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be > 0, got {bandwidth}")


def _apply(kernel: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """A kernel of checked features ``[..., N, D]`` → ``[..., N, N]``, in their precision.

    On the CPU it is worked out in float64, a few images at a time so that temporaries stay in the cache.
    """
    with no_autocast(features):
        if features.device.type != "cpu":
            return kernel(features)
        *batch, N, D = features.shape
        images = features.reshape(-1, N, D)
        size = len(images) if torch.compiler.is_compiling() else max(1, GROUP_NUMBERS // (N * max(N, D)))
        groups = images.split(max(size, 1))
        kernels = spread(lambda group: kernel(group.double()).to(features.dtype), groups)
        return torch.cat(kernels).reshape(*batch, N, N)


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
    twice = _twice_gram(x)  # [..., N, N]
    square = twice.diagonal(dim1=-2, dim2=-1) / 2  # [..., N]
    return (square[..., :, None] + square[..., None, :] - twice).clamp(min=0)


def _twice_gram(x: Tensor) -> Tensor:
    """``2 x xᵀ``, exactly symmetric and float32-accurate or better, whatever the global matmul precision."""
    half = _split_product(x) if x.dtype == torch.float32 else x @ x.mT
    return half + half.mT


def _split_product(x: Tensor) -> Tensor:
    """A matrix that with its transpose adds up to ``2 x xᵀ``, by products that lose nothing in TF32.

    ``x = high + low`` exactly, where ``high`` has the 10 explicit mantissa bits of TF32 and ``low`` is at
    most 2⁻¹⁰ of it, so that rounding ``low`` to TF32, and leaving out ``low lowᵀ``, costs 2⁻²⁰.
    """
    high = (x.detach().view(torch.int32) & ~0x1FFF).view(torch.float32)
    low = x - high
    return high @ high.mT + 2 * (high @ low.mT)
