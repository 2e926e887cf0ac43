"""Exact sampling of DPPs and k-DPPs: choose eigenvectors, then sample the projection DPP that they span."""

import torch
from torch import Tensor

from dppmask.dpp.backends import torch_ops
from dppmask.dpp.checks import as_kernel, check_size, no_autocast
from dppmask.dpp.likelihood import check_rank, log_esp
from dppmask.dpp.spectrum import decompose
from dppmask.dpp.threads import chain


@torch.no_grad()
def sample_dpp(L: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One exact sample of the DPP of each kernel: ``P(S) = det L_S / det(L + I)``.

    Args:
        L: Likelihood kernel ``[..., N, N]``.
        generator: The only source of randomness, on any device; None = torch's global one.

    Returns:
        bool ``[..., N]``.

    Raises:
        ValueError: If ``L`` is not finite and positive semi-definite (looked at on the CPU only).

    Source: Hough et al. (2006); Kulesza and Taskar (2012), Algorithm 1.
    """
    L = as_kernel(L)
    N = L.shape[-1]
    noise = _draw(L, generator).reshape(-1, N)
    values, vectors = decompose(L.reshape(-1, N, N))
    chance = values / (1 + values)  # [B, N]
    size = int((noise < chance).sum(1).amax())
    return _sample_spanned(vectors, chance, noise, size).reshape(L.shape[:-1])


@torch.no_grad()
def sample_kdpp(L: Tensor, k: int, *, generator: torch.Generator | None = None) -> Tensor:
    """One exact sample of the k-DPP of each kernel: ``P(S) = det L_S / e_k(λ)`` where ``|S| = k``.

    Args:
        L: Likelihood kernel ``[..., N, N]``.
        k: Size of the sample, from 0 to N.
        generator: The only source of randomness, on any device; None = torch's global one.

    Returns:
        int64 ``[..., k]``, ascending.

    Raises:
        ValueError: If ``k`` is outside [0, N], the numerical rank of a kernel is below ``k``, or ``L`` is not
            finite and positive semi-definite (looked at on the CPU only).

    Source: Kulesza and Taskar (2011), Algorithm 2.
    """
    L = as_kernel(L)
    check_size(k, L.shape[-1])
    values, vectors = decompose(L)
    check_rank(values, k)
    return _true_first(_sample_sized(values, vectors, k, _draw(L, generator)))[..., :k]


@torch.no_grad()
def kdpp_from_noise(L: Tensor, k: int, noise: Tensor) -> Tensor:
    """A k-DPP sample as a pure function of its randomness; smaller where the rank of L is below ``k``.

    Args:
        L: Likelihood kernel ``[..., N, N]``.
        k: Size of the sample, from 0 to N.
        noise: ``[..., N]``, uniform in [0, 1).

    Returns:
        bool ``[..., N]`` with ``min(k, rank)`` items per row.

    Raises:
        ValueError: As :func:`sample_kdpp`, but for the rank.
    """
    L = as_kernel(L)
    check_size(k, L.shape[-1])
    values, vectors = decompose(L)
    return _sample_sized(values, vectors, k, noise.to(values))


def _draw(L: Tensor, generator: torch.Generator | None) -> Tensor:
    """All the randomness of a sample: uniform float64 ``[..., N]`` on the device of ``L``."""
    source = L.device if generator is None else generator.device
    return torch.rand(L.shape[:-1], dtype=torch.float64, generator=generator, device=source).to(L.device)


def _sample_sized(values: Tensor, vectors: Tensor, k: int, noise: Tensor) -> Tensor:
    """Sample ``min(k, rank)`` items of each kernel: bool ``[..., N]``."""
    N = values.shape[-1]
    shape, values, noise = noise.shape, values.reshape(-1, N), noise.reshape(-1, N)
    log_values = values.log()
    log_e = log_esp(log_values, k)  # [B, N + 1, k + 1]
    # chance of eigenvector n when j are wanted from the first n: λ_n e_(j-1)(first n - 1) / e_j(first n)
    inclusion = (log_values[:, :, None] + log_e[:, :-1, :-1] - log_e[:, 1:, 1:]).exp()  # [B, N, k]
    size = (values > 0).sum(1).clamp(max=k)
    chance = chain(torch_ops.eigenvector_chances, inclusion, noise, size, numbers=values.numel())
    return _sample_spanned(vectors.reshape(-1, N, N), chance, noise, k).reshape(shape)


def _sample_spanned(vectors: Tensor, chance: Tensor, noise: Tensor, size: int) -> Tensor:
    """Sample the projection DPP of the eigenvectors chosen, at most ``size`` in a row: bool ``[B, N]``.

    An eigenvector is chosen where ``noise < chance``; there ``noise / chance`` is uniform again and
    independent of the choice, so one noise ``[B, N]`` serves both phases.
    """
    chosen = noise < chance
    fresh = torch.where(chosen, noise / chance, 0)
    order = _true_first(chosen)[:, :size]
    span = vectors.mT.gather(1, order[:, :, None].expand(-1, -1, vectors.shape[1]))  # [B, size, N]
    span = span * chosen.gather(1, order)[:, :, None]
    with no_autocast(span):
        return chain(
            torch_ops.sample_projection, span, chosen.sum(1), fresh.gather(1, order), numbers=span.numel()
        )


def _true_first(chosen: Tensor) -> Tensor:
    """Indices ``[..., N]``, those of True entries first, each group ascending."""
    return chosen.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)
