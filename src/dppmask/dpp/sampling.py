"""Exact samples of DPPs and k-DPPs, and which of two algorithms draws them."""

from typing import Literal, get_args

import torch
from torch import Tensor

from dppmask.dpp import rejection, spectral
from dppmask.dpp.backends import ops
from dppmask.dpp.checks import as_kernel, as_sizes, check_size, no_autocast, rows_left
from dppmask.dpp.likelihood import check_rank
from dppmask.dpp.uniforms import digest, uniforms

MOST_BY_REJECTION = 2 / 3  # of the items, on a CPU: measured

Method = Literal["auto", "spectral", "rejection"]


@torch.no_grad()
def sample_dpp(L: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One exact sample of the DPP of each kernel: ``P(S) = det L_S / det(L + I)``.

    By one sequential draw, without eigenvectors; an ill-conditioned kernel by its spectrum.

    Args:
        L: Likelihood kernel ``[..., N, N]``.
        generator: The only source of randomness, on any device; None = torch's global one.

    Returns:
        bool ``[..., N]``.

    Raises:
        ValueError: If ``L`` is not finite and positive semi-definite (looked at on the CPU only).

    Source: Poulson (2020); Hough et al. (2006).
    """
    L = as_kernel(L)
    N = L.shape[-1]
    noise, matrices = _draw(L, generator).reshape(-1, N), L.reshape(-1, N, N)
    with no_autocast(L):
        chosen, found = rejection.sample_any_size(matrices, noise)
        if not found.all():  # what decides that is the kernel alone: the noise is as good as new
            rows = (~found).nonzero()[:, 0]
            chosen[rows] = spectral.sample_any_size(matrices[rows], noise[rows])
    return chosen.reshape(L.shape[:-1])


@torch.no_grad()
def sample_kdpp(
    L: Tensor, k: int, *, generator: torch.Generator | None = None, method: Method = "auto"
) -> Tensor:
    """One exact sample of the k-DPP of each kernel: ``P(S) = det L_S / e_k(λ)`` where ``|S| = k``.

    Args:
        L: Likelihood kernel ``[..., N, N]``.
        k: Size of the sample, from 0 to N.
        generator: The only source of randomness, on any device; None = torch's global one.
        method: Which algorithm. "spectral" needs all eigenvectors. "rejection" draws rescaled DPPs until one
            has k items, and leaves kernels that are ill-conditioned or of a rank of hardly k to the spectral
            one. "auto" is rejection; on a CPU only where numba is installed (the extra ``fast``) and k is at
            most two thirds of N, else spectral. All have the same law, but not the same sample.

    Returns:
        int64 ``[..., k]``, ascending.

    Raises:
        ValueError: If ``k`` is outside [0, N], the numerical rank of a kernel is below ``k``, ``method`` is
            none of the three, or ``L`` is not finite and positive semi-definite (looked at on the CPU only).

    Source: :mod:`~dppmask.dpp.rejection`; Kulesza and Taskar (2011), Algorithm 2.
    """
    L = as_kernel(L)
    check_size(k, L.shape[-1])
    chosen, short = sample_sized(L, k, _draw(L, generator), method)
    if short is not None:
        check_rank(chosen.sum(-1), k)
    return spectral.true_first(chosen)[..., :k]


@torch.no_grad()
def kdpp_from_noise(L: Tensor, k: int | Tensor, noise: Tensor, *, method: Method = "auto") -> Tensor:
    """A k-DPP sample as a pure function of its randomness; smaller where the rank of L is below ``k``.

    Args:
        L: Likelihood kernel ``[..., N, N]``.
        k: Size of the sample, from 0 to N, or int64 ``[...]``.
        noise: ``[..., N]``, uniform in [0, 1).
        method: As for :func:`sample_kdpp`.

    Returns:
        bool ``[..., N]`` with ``min(k, rank)`` items per row.

    Raises:
        TypeError: If ``k`` is a tensor but not int64.
        ValueError: As :func:`sample_kdpp`, but for the rank; or if ``k`` is a tensor of another shape than
            the leading one of ``L``.
    """
    return sample_sized(as_kernel(L), k, noise, method)[0]


@torch.no_grad()
def sample_sized(
    L: Tensor, k: int | Tensor, noise: Tensor, method: Method = "auto"
) -> tuple[Tensor, Tensor | None]:
    """As :func:`kdpp_from_noise`, and which rows are smaller than wanted.

    Returns:
        bool ``[..., N]`` and bool ``[...]``, or None if no row is: that is known without waiting for an
        accelerator a second time.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    *batch, N, _ = L.shape
    size = as_sizes(k, batch, N, L.device).reshape(-1)
    matrices, digests = L.reshape(-1, N, N), digest(noise.to(L.device)).reshape(-1)
    chosen = torch.zeros(len(size), N, dtype=torch.bool, device=L.device)
    found = size == 0
    with no_autocast(L):
        rows = _rows_for_rejection(method, size, N)
        chosen[rows], new = rejection.sample_sized(matrices[rows], size[rows], digests[rows])
        found[rows] |= new
        if found.all():
            return chosen.reshape(noise.shape), None
        rows = (~found).nonzero()[:, 0]
        counters = -torch.arange(1, N + 1, device=L.device)  # rejection counts from 0 upwards
        fresh = uniforms(digests[rows, None], counters)
        chosen[rows] = spectral.sample_sized(matrices[rows], size[rows], fresh)
    return chosen.reshape(noise.shape), (chosen.sum(1) < size).reshape(batch)


def _rows_for_rejection(method: Method, size: Tensor, num_items: int) -> Tensor | slice:
    """The rows that try rejection first, as an index; ``size`` is int64 ``[B]``.

    On a CPU the spectral sampler is faster where draws are not compiled, and to sample most of the items: it
    may draw those that it leaves out.
    """
    if method == "rejection" or (method == "auto" and size.device.type != "cpu"):
        return slice(None)
    if method == "auto" and ops.HAS_NUMBA:
        return rows_left(size <= num_items * MOST_BY_REJECTION)
    return size[:0]


def _draw(L: Tensor, generator: torch.Generator | None) -> Tensor:
    """All the randomness of a sample: uniform float64 ``[..., N]`` on the device of ``L``."""
    source = L.device if generator is None else generator.device
    return torch.rand(L.shape[:-1], dtype=torch.float64, generator=generator, device=source).to(L.device)
