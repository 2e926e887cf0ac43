"""Samples without eigenvectors: draw a DPP one item after another, and for a k-DPP until a draw has k items.

Given that a sample of the DPP of α L has k items, P(S) ∝ det (α L)_S = αᵏ det L_S: the k-DPP of L, whatever α
is. With α as in :mod:`~dppmask.dpp.scaling` a share of about 1 / √(2π variance) of the draws is kept: one in
twelve for 49 patches of 196.

Source: sequential draws: Poulson (2020), *High-performance sampling of generic determinantal point
    processes*; scaling to a size: Calandriello, Dereziński and Valko (2020), *Sampling from a k-DPP without
    looking at all items*.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dppmask.dpp.backends import ops, torch_sampling
from dppmask.dpp.checks import rows_left
from dppmask.dpp.scaling import scale_to_size, unscaled
from dppmask.dpp.threads import spread
from dppmask.dpp.uniforms import uniforms

# Draws tried before the next look at what is still missing. On an accelerator nobody looks, and each round
# costs all images something; two leave one image in 70 000 to the spectral sampler.
ROUNDS = {"cpu": (8, 16, 64, 256)}
ROUNDS_UNSEEN = (64, 64)
GROUP_NUMBERS = 2**19  # float64 numbers of one temporary on the CPU: 4 MiB

Draws = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def sample_sized(L: Tensor, size: Tensor, digests: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of the k-DPP of each kernel, except where that is too hard for rejection.

    Args:
        L: ``[B, N, N]``.
        size: int64 ``[B]``: k of each row.
        digests: int64 ``[B]``, all the randomness.

    Returns:
        bool ``[B, N]`` and bool ``[B]``: whether the row has its sample. It has none if the numerical rank is
        not clearly at least k, the kernel is ill-conditioned or not positive semi-definite, k is 0 or N, or
        all draws failed: a chance of 1e-13 for images. Draws use the counters from 0 on, so numbers of other
        counters are independent of all that.
    """

    def sample(rows: Tensor) -> tuple[Tensor, Tensor]:
        scaled = scale_to_size(_reversed(L[rows]), size[rows], L.dtype)
        kernel, draws = _backend(scaled.factor, L.dtype)
        return first_of_size(draws, kernel, size[rows], digests[rows], scaled.usable)

    return _on_groups(sample, L)


def sample_any_size(L: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of the DPP of each kernel, by one draw: L ``[B, N, N]``, noise ``[B, N]`` uniform in [0, 1).

    Returns:
        As :func:`sample_sized`; kernels that are ill-conditioned or not positive semi-definite have none.
    """

    def sample(rows: Tensor) -> tuple[Tensor, Tensor]:
        factor, usable = unscaled(_reversed(L[rows]), L.dtype)
        if ops.backend(factor, factor.shape[1]) == "numba":
            return ops.implementation("numba_sampling").sequential_sample(factor, noise[rows]), usable
        return torch_sampling.sequential_sample(_marginal_kernel(factor, L.dtype), noise[rows]), usable

    return _on_groups(sample, L)


def first_of_size(
    draws: Draws, kernel: Tensor, size: Tensor, digests: Tensor, active: Tensor
) -> tuple[Tensor, Tensor]:
    """The first draw of each image that has ``size`` items, in rounds of more and more draws.

    Draw r of an image takes the same numbers however the rounds are divided and whatever other images do.

    Args:
        draws: ``(kernel, uniforms, size, active) -> (chosen, found)`` of a backend.
        kernel: ``[B, N, N]``, what that backend draws from.
        size: int64 ``[B]``.
        digests: int64 ``[B]``.
        active: bool ``[B]``; nothing is found for the other images.

    Returns:
        bool ``[B, N]`` and bool ``[B]``.
    """
    B, N, _ = kernel.shape
    chosen = torch.zeros(B, N, dtype=torch.bool, device=kernel.device)
    found = torch.zeros_like(active)
    start = 0
    for count in ROUNDS.get(kernel.device.type, ROUNDS_UNSEEN):
        left = active & ~found
        rows = rows_left(left)
        if not len(left[rows]):
            break
        counters = torch.arange(start * N, (start + count) * N, device=kernel.device).reshape(count, N)
        numbers = uniforms(digests[rows, None, None], counters)
        new = draws(kernel[rows], numbers, size[rows], left[rows])
        chosen[rows] |= new[0]
        found[rows] |= new[1]
        start += count
    return chosen, found


def _backend(factor: Tensor, dtype: torch.dtype) -> tuple[Tensor, Draws]:
    """The fastest draws for a device, and the kernels they want."""
    N = factor.shape[1]
    if ops.backend(factor, N) == "numba":
        return factor, ops.implementation("numba_sampling").sequential_draws
    K = _marginal_kernel(factor, dtype)
    name = "triton_sampling" if ops.backend(K, N) == "triton" else "torch_sampling"
    return K, ops.implementation(name).sequential_draws


def _marginal_kernel(factor: Tensor, dtype: torch.dtype) -> Tensor:
    """``K = I - (α L + I)⁻¹`` with the items in order again: float64 on the CPU, elsewhere as L was given."""
    identity = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor.mT, identity.expand_as(factor), upper=False)
    K = (identity - inverse.mT @ inverse).flip((1, 2))
    return K if K.device.type == "cpu" else K.to(dtype)


def _reversed(L: Tensor) -> Tensor:
    """Items last to first, in float64: a triangular factor of that serves to decide them first to last."""
    return L.flip((1, 2)).double()


def _on_groups(sample: Callable[[Tensor], tuple[Tensor, Tensor]], L: Tensor) -> tuple[Tensor, Tensor]:
    """Sample the rows of ``L [B, N, N]``: on the CPU a few at a time, spread over threads; or all at once."""
    rows = torch.arange(len(L), device=L.device)
    if L.device.type != "cpu" or not len(L):
        return sample(rows)
    share = -(-len(L) // torch.get_num_threads())
    groups = rows.split(max(1, min(share, GROUP_NUMBERS // L[0].numel())))
    chosen, found = zip(*spread(sample, groups), strict=True)
    return torch.cat(chosen), torch.cat(found)
