"""The spectral sampler: choose eigenvectors, then sample the projection DPP that they span."""

import torch
from torch import Tensor

from dppmask.dpp.backends import torch_ops
from dppmask.dpp.checks import no_autocast
from dppmask.dpp.likelihood import log_esp
from dppmask.dpp.spectrum import decompose
from dppmask.dpp.threads import chain, shares, spread


def sample_any_size(L: Tensor, noise: Tensor) -> Tensor:
    """A sample of the DPP of each kernel: L ``[B, N, N]``, uniform noise ``[B, N]`` → bool ``[B, N]``.

    Raises:
        ValueError: If ``L`` is clearly not positive semi-definite (looked at on the CPU only).

    Source: Hough et al. (2006); Kulesza and Taskar (2012), Algorithm 1.
    """
    if not len(L):
        return torch.zeros_like(noise, dtype=torch.bool)
    values, vectors = decompose(L)
    chance = values / (1 + values)  # [B, N]
    return _sample_spanned(vectors, chance, noise.to(values))


def sample_sized(L: Tensor, size: Tensor, noise: Tensor) -> Tensor:
    """A sample of the k-DPP of each kernel, or of its r-DPP where the numerical rank r is below k.

    Args:
        L: ``[B, N, N]``.
        size: int64 ``[B]``: k of each row.
        noise: ``[B, N]``, uniform in [0, 1).

    Returns:
        bool ``[B, N]`` with ``min(k, rank)`` items per row.

    Raises:
        ValueError: If ``L`` is clearly not positive semi-definite (looked at on the CPU only).

    Source: Kulesza and Taskar (2011), Algorithm 2.
    """
    if L.device.type != "cpu" or len(L) < 2:
        return _sample_sized(L, size, noise)
    parts = spread(lambda rows: _sample_sized(L[rows], size[rows], noise[rows]), shares(len(L)))
    return torch.cat(parts)


def _sample_sized(L: Tensor, size: Tensor, noise: Tensor) -> Tensor:
    if not len(L):
        return torch.zeros_like(noise, dtype=torch.bool)
    values, vectors = decompose(L)
    noise, largest = noise.to(values), int(size.max())
    log_values = values.log()
    log_e = log_esp(log_values, largest)  # [B, N + 1, k + 1]
    # chance of eigenvector n when j are wanted from the first n: λ_n e_(j-1)(first n - 1) / e_j(first n)
    inclusion = (log_values[:, :, None] + log_e[:, :-1, :-1] - log_e[:, 1:, 1:]).exp()  # [B, N, k]
    wanted = (values > 0).sum(1).minimum(size)
    chance = chain(torch_ops.eigenvector_chances, inclusion, noise, wanted, numbers=values.numel())
    return _sample_spanned(vectors, chance, noise)


def _sample_spanned(vectors: Tensor, chance: Tensor, noise: Tensor) -> Tensor:
    """Sample the projection DPP of the eigenvectors that the noise chooses: bool ``[B, N]``.

    An eigenvector is chosen where ``noise < chance``. Given the choice, where the noise lies in its part of
    [0, 1) is uniform again, so one noise ``[B, N]`` serves both phases. The items that a projection DPP
    leaves out are a sample of the projection DPP of all other eigenvectors: the smaller part is drawn.
    """
    chosen = noise < chance  # [B, N]
    fresh = torch.where(chosen, noise / chance, (noise - chance) / (1 - chance))
    count = chosen.sum(1)
    most, fewest = (int(number) for number in count.aminmax()[::-1])
    complement = chosen.shape[1] - fewest < most
    if complement:
        chosen, count, most = ~chosen, chosen.shape[1] - count, chosen.shape[1] - fewest
    order = true_first(chosen)[:, :most]
    span = vectors.mT.gather(1, order[:, :, None].expand(-1, -1, vectors.shape[1]))  # [B, most, N]
    span = span * chosen.gather(1, order)[:, :, None]
    with no_autocast(span):
        sample = chain(torch_ops.sample_projection, span, count, fresh.gather(1, order), numbers=span.numel())
    return ~sample if complement else sample


def true_first(chosen: Tensor) -> Tensor:
    """Indices ``[..., N]``, those of True entries first, each group ascending."""
    return chosen.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)
