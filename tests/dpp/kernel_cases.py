"""Kernels that the tests of this folder share, and the one statistical test they use."""

import torch
from scipy import stats
from torch import Tensor

from dppmask.dpp import naive
from dppmask.rng import fold_in


def random_kernel(
    *shape: int, rank: int | None = None, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """A kernel ``[..., N, N]`` of the given rank, N by default; ``shape`` is ``(..., N)``."""
    factors = torch.randn(
        *shape, rank or shape[-1], dtype=torch.float64, generator=fold_in(seed, *shape, rank or 0)
    )
    return (factors @ factors.mT / factors.shape[-1]).to(dtype)


def patch_features(
    *batch: int, num_patches: int = 196, dim: int = 32, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Rows ``[..., N, D]`` that share a direction, as the patches of an image do."""
    generator = fold_in(seed, *batch, num_patches)
    rows = torch.randn(*batch, num_patches, dim, dtype=torch.float64, generator=generator)
    return (rows + 2 * rows[..., :1, :]).to(dtype)


def patch_kernel(
    *batch: int, num_patches: int = 196, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The Gaussian kernel of the unit rows of :func:`patch_features`, by plain differences."""
    rows = torch.nn.functional.normalize(patch_features(*batch, num_patches=num_patches, seed=seed), dim=-1)
    squared = (rows[..., :, None, :] - rows[..., None, :, :]).square().sum(-1)
    return torch.exp(-squared / 2).to(dtype)


def degenerate_kernels(dtype: torch.dtype) -> dict[str, tuple[Tensor, int]]:
    """Name → (kernel ``[N, N]``, its rank)."""
    small, large = (1e-30, 1e30) if dtype == torch.float64 else (1e-15, 1e15)
    base = random_kernel(5, seed=1)
    repeated = random_kernel(3, seed=2)[[0, 1, 2, 1, 0]][:, [0, 1, 2, 1, 0]]
    quality = torch.tensor([1e-4, 1e-2, 1.0, 1e2, 1e4], dtype=torch.float64)
    absent = torch.tensor([1, 0, 1, 1, 0], dtype=torch.float64)
    cases = {
        "flat": (torch.ones(5, 5), 1),
        "zero": (torch.zeros(5, 5), 0),
        "single": (torch.full((1, 1), 0.7), 1),
        "repeated": (repeated, 3),
        "low_rank": (random_kernel(6, rank=2, seed=3), 2),
        "absent_items": (absent * base * absent[:, None], 3),
        "identity": (torch.eye(4), 4),
        "tiny": (small * base, 5),
        "huge": (large * base, 5),
        "huge_low_rank": (large * random_kernel(6, rank=2, seed=3), 2),
        "badly_scaled": (quality * base * quality[:, None], 5),
    }
    return {name: (kernel.to(dtype), rank) for name, (kernel, rank) in cases.items()}


def degenerate_parameters() -> list:
    """``(dtype, name)`` of every degenerate kernel, for parametrisation."""
    return [(dtype, name) for dtype in (torch.float32, torch.float64) for name in degenerate_kernels(dtype)]


def chi_square_p_value(counts: Tensor, probabilities: Tensor) -> float:
    """p-value of observed counts under a law; cells with fewer than 5 expected are pooled."""
    counts, expected = counts.double(), probabilities.double() * counts.sum()
    rare = expected < 5
    if rare.any():
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    if expected[-1] == 0:
        if counts[-1] > 0:
            return 0.0  # something impossible happened
        counts, expected = counts[:-1], expected[:-1]
    return float(stats.chisquare(counts.numpy(), expected.numpy(), sum_check=False).pvalue)


def counts_of_subsets(masks: Tensor) -> Tensor:
    """How often each subset occurs in ``masks [..., N]``, by its binary code: int64 ``[2^N]``."""
    N = masks.shape[-1]
    return (masks.reshape(-1, N).long() << torch.arange(N)).sum(1).bincount(minlength=2**N)


def law_of_subsets(L: Tensor, k: int | None = None) -> Tensor:
    """The enumerated law of the DPP, or of its k-DPP, in the same order."""
    law = torch.zeros(2 ** len(L), dtype=torch.float64)
    for subset, probability in naive.probabilities(L, k).items():
        law[sum(1 << item for item in subset)] = probability
    return law


def wrong_kernel(L: Tensor) -> Tensor:
    """A little more similarity between all items and better late ones: close, and yet another law."""
    quality = torch.linspace(1, 1.3, len(L), dtype=L.dtype)
    similar = 0.9 * L + 0.1 * L.diagonal().max() * torch.ones_like(L)
    return quality * similar * quality[:, None]
