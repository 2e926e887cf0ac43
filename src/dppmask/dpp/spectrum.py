"""Eigenvalues and eigenvectors of a likelihood kernel, with rounding noise told apart from rank. Float64."""

import torch
from torch import Tensor

from dppmask.dpp.checks import can_look_at
from dppmask.dpp.threads import spread

EPS = torch.finfo(torch.float64).eps


def decompose(L: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``λ ≥ 0`` and orthonormal eigenvectors of ``L``, in float64 and no particular order.

    Directions that hold nothing but rounding noise get λ = 0 exactly. Noise is judged on the kernel rescaled
    to a unit diagonal, where the entries of L are known to eps(dtype) each, so the verdict depends on the
    scale of no item.

    Args:
        L: ``[..., N, N]``, float32 or float64.

    Returns:
        λ ``[..., N]`` and eigenvectors ``[..., N, N]`` in columns.

    Raises:
        ValueError: If ``L`` is clearly not positive semi-definite (looked at on the CPU only).
    """
    dtype, L = L.dtype, L.double()
    diagonal = L.diagonal(dim1=-2, dim2=-1)
    scale = diagonal[..., :1]
    if bool((diagonal == scale).all()):
        values, vectors = eigh(L)
        values = values / torch.where(scale > 0, scale, 1)
        return _without_noise(values, diagonal, dtype) * scale, vectors
    correlation, root = to_unit_diagonal(L)
    values, vectors = eigh(correlation)
    return _rescale(_without_noise(values, diagonal, dtype), vectors, root)


def to_unit_diagonal(L: Tensor) -> tuple[Tensor, Tensor]:
    """``L / (root rootᵀ)`` and root ``[..., N]``, the square root of the diagonal; 0 where that is 0."""
    root = L.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    inverse = torch.where(root > 0, 1 / root, 0)
    return L * inverse[..., :, None] * inverse[..., None, :], root


def rounding_noise(values: Tensor, size: int | Tensor, dtype: torch.dtype) -> Tensor:
    """The most that rounding adds to an eigenvalue of a kernel of unit diagonal: ``[...]``.

    The entries are known to eps(dtype), and float64 arithmetic adds its eps of the largest eigenvalue.

    Args:
        values: Eigenvalues ``[..., N]``, ascending.
        size: Number of items: one, or ``[...]``.
        dtype: Precision in which the kernel was given.
    """
    return size * (EPS * values[..., -1]).clamp(min=torch.finfo(dtype).eps)


def _without_noise(values: Tensor, diagonal: Tensor, dtype: torch.dtype) -> Tensor:
    """Eigenvalues of a kernel rescaled to a unit diagonal, those of rounding noise set to 0.

    Raises:
        ValueError: If one of them, or the diagonal before rescaling, is negative by more than rounding.
    """
    slack = torch.finfo(dtype).eps ** 0.5
    for name, entries in (("diagonal entry", diagonal), ("eigenvalue, relative to the diagonal,", values)):
        if can_look_at(entries) and (entries < -slack * entries.abs().amax(-1, keepdim=True)).any():
            raise ValueError(f"L must be positive semi-definite, got a {name} of {float(entries.min()):.3g}")
    noise = rounding_noise(values, values.shape[-1], dtype)
    return torch.where(values > noise[..., None], values, 0)


def _rescale(values: Tensor, vectors: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenpairs of ``diag(root) V diag(values) Vᵀ diag(root)``.

    By singular values of its square root: they resolve ratios of eigenvalues to eps², so that items of very
    different quality keep their law.
    """
    vectors, singular, _ = torch.linalg.svd(root[..., :, None] * vectors * values.sqrt()[..., None, :])
    noise = values.shape[-1] * EPS * singular[..., :1]
    return torch.where(singular > noise, singular, 0).square(), vectors


def eigh(S: Tensor) -> tuple[Tensor, Tensor]:
    """``torch.linalg.eigh`` with the batch, not each matrix, spread over the CPU's threads."""
    if S.device.type != "cpu" or S.ndim == 2:
        return torch.linalg.eigh(S)
    matrices = S.reshape(-1, *S.shape[-2:])
    values, vectors = zip(*spread(torch.linalg.eigh, matrices.chunk(torch.get_num_threads())), strict=True)
    return torch.cat(values).reshape(S.shape[:-1]), torch.cat(vectors).reshape(S.shape)
