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

from dppmask.dpp.backends import ops
from dppmask.dpp.checks import rows_left
from dppmask.dpp.scaling import scale_to_size, unscaled
from dppmask.dpp.threads import shares, spread
from dppmask.dpp.uniforms import uniforms

# Draws tried before the next look at what is still missing. On an accelerator nobody looks, and each round
# costs all images something; two leave one image in 70 000 to the spectral sampler.
ROUNDS = {"cpu": (8, 16, 64, 256)}
ROUNDS_UNSEEN = (64, 64)
GROUP_NUMBERS = 2**18  # float64 numbers of one temporary on the CPU: 2 MiB


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

    def sample(rows: slice) -> tuple[Tensor, Tensor]:
        scaled = scale_to_size(_reversed(L[rows]), size[rows], L.dtype)
        kernel = _drawable(scaled.factor, L.dtype)
        return first_of_size(kernel, size[rows], digests[rows], scaled.usable)

    return _on_groups(sample, L)


def sample_any_size(L: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of the DPP of each kernel, by one draw: L ``[B, N, N]``, noise ``[B, N]`` uniform in [0, 1).

    Returns:
        As :func:`sample_sized`; kernels that are ill-conditioned or not positive semi-definite have none.
    """

    def sample(rows: slice) -> tuple[Tensor, Tensor]:
        factor, usable = unscaled(_reversed(L[rows]), L.dtype)
        return ops.sequential_sample(_drawable(factor, L.dtype), noise[rows]), usable

    return _on_groups(sample, L)


def first_of_size(kernel: Tensor, size: Tensor, digests: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """The first draw of each image that has ``size`` items, in rounds of more and more draws.

    Draw r of an image takes the same numbers however the rounds are divided and whatever other images do.

    Args:
        kernel: ``[B, N, N]``, what the backend draws from.
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
        new = ops.sequential_draws(kernel[rows], numbers, size[rows], left[rows])
        chosen[rows] |= new[0]
        found[rows] |= new[1]
        start += count
    return chosen, found


def _drawable(factor: Tensor, dtype: torch.dtype) -> Tensor:
    """What the backend for kernels given in ``dtype`` draws from: the factor itself, or the marginal kernel.

    The latter is ``K = I - (α L + I)⁻¹`` with the items in order again.
    """
    if ops.backend(factor, factor.shape[1]) == "numba":
        return factor
    identity = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor.mT, identity.expand_as(factor), upper=False)
    K = (identity - inverse.mT @ inverse).flip((1, 2))
    return K if K.device.type == "cpu" else K.to(dtype)


def _reversed(L: Tensor) -> Tensor:
    """Items last to first, in float64: a triangular factor of that serves to decide them first to last."""
    return L.flip((1, 2)).double()


def _on_groups(sample: Callable[[slice], tuple[Tensor, Tensor]], L: Tensor) -> tuple[Tensor, Tensor]:
    """Sample the rows of ``L [B, N, N]``: on the CPU a few at a time, spread over threads; or all at once."""
    if L.device.type != "cpu" or len(L) == 0:
        return sample(slice(None))
    groups = shares(len(L), at_most=GROUP_NUMBERS // L[0].numel())
    chosen, found = zip(*spread(sample, groups), strict=True)
    return torch.cat(chosen), torch.cat(found)
