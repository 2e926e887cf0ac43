"""Visible patches by exact sampling of a k-DPP."""

import logging

import torch
from torch import Tensor

from dppmask.dpp import gaussian_kernel, kdpp_from_noise
from dppmask.masks.base import Mask
from dppmask.masks.features import FeatureMask, Source

logger = logging.getLogger(__name__)


class KDPPMask(FeatureMask):
    """Draw the K visible patches from the k-DPP of the kernel of :class:`~dppmask.masks.dpp.DPPMask`.

    Every set of K patches can be drawn, with probability proportional to det L of the set; greedy MAP
    inference looks for the one most likely set. An image with fewer than K different patches (its kernel has
    rank r < K) gets r patches from the r-DPP and the rest by the smallest noise. Such rows are counted, and
    the first are logged.

    Args:
        source: What is compared: "tokens", "pixels" or "teacher".
        bandwidth: σ of the Gaussian kernel on L2-normalised features.

    Attributes:
        num_fallback: How many rows had too small a rank since the strategy was made.
        last_fallback: bool ``[B]``, those rows of the latest batch; None before the first.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Kulesza and Taskar (2011), *k-DPPs: Fixed-Size Determinantal Point Processes*, Algorithm 2.
    """

    syncs = True  # the eigenvectors and the count of fallbacks

    def __init__(self, source: Source = "tokens", bandwidth: float = 1.0) -> None:
        super().__init__(source=source, bandwidth=bandwidth)
        self.num_fallback = 0
        self.last_fallback: Tensor | None = None

    def choose(self, features: Tensor, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask from features ``[B, N, D]``, noise ``[B, N]`` and one count or int64 ``[B]``."""
        L = gaussian_kernel(features, bandwidth=self.bandwidth)  # [B, N, N]
        if isinstance(num_masked, Tensor):
            sampled = _sample_counts(L, noise, num_masked)
        else:
            sampled = _sample(L, noise, num_masked)
        order = exchange_bits(noise) - 2 * sampled.to(noise.dtype)  # what is sampled lies below 0
        mask = Mask.from_scores(order, num_masked)
        self._count_fallback((~mask.masked).sum(1) > sampled.sum(1))
        return mask

    def _count_fallback(self, fallback: Tensor) -> None:
        count = int(fallback.sum())
        if count and not self.num_fallback:
            logger.warning(
                "KDPPMask: %d of %d images have fewer different patches than must be visible; the rest was "
                "filled at random. Later ones are counted in num_fallback without a message.",
                count,
                len(fallback),
            )
        self.num_fallback += count
        self.last_fallback = fallback


def exchange_bits(noise: Tensor) -> Tensor:
    """Swap the upper and the lower 12 bits of noise on the 24-bit grid of float32.

    Again uniform in [0, 1), and hardly dependent on what the upper bits have decided already: the sample.
    """
    upper = (noise * 2**12).floor()
    return noise * 2**12 - upper + upper / 2**24


def _sample_counts(L: Tensor, noise: Tensor, num_masked: Tensor) -> Tensor:
    """As :func:`_sample`, for counts int64 ``[B]``; rows with equal counts are drawn together."""
    sampled = torch.empty_like(noise, dtype=torch.bool)
    for count in num_masked.unique().tolist():
        rows = (num_masked == count).nonzero()[:, 0].to(L.device)
        sampled[rows] = _sample(L[rows], noise[rows], count)
    return sampled


def _sample(L: Tensor, noise: Tensor, num_masked: int) -> Tensor:
    """A k-DPP sample of N - ``num_masked`` patches, or of as many as the rank allows; bool ``[B, N]``."""
    if num_masked == 0:
        return torch.ones_like(noise, dtype=torch.bool)
    return kdpp_from_noise(L, noise.shape[1] - num_masked, noise)
