"""Visible patches by exact sampling of a k-DPP."""

import logging

import torch
from torch import Tensor

from dppmask.dpp import gaussian_kernel
from dppmask.dpp.sampling import sample_sized
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

    Source: Kulesza and Taskar (2011), *k-DPPs: Fixed-Size Determinantal Point Processes*;
        :mod:`dppmask.dpp.rejection`.
    """

    syncs = True  # once: whether every row has its sample

    def __init__(self, source: Source = "tokens", bandwidth: float = 1.0) -> None:
        super().__init__(source=source, bandwidth=bandwidth)
        self.num_fallback = 0
        self.last_fallback: Tensor | None = None

    def choose(self, features: Tensor, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask from features ``[B, N, D]``, noise ``[B, N]`` and one count or int64 ``[B]``."""
        L = gaussian_kernel(features, bandwidth=self.bandwidth)  # [B, N, N]
        sampled, short = sample_sized(L, _sizes(num_masked, noise.shape[1]), noise)
        mask = Mask.from_scores(noise - sampled.to(noise.dtype), num_masked)  # what is sampled lies below 0
        self.last_fallback = torch.zeros_like(sampled[:, 0]) if short is None else short
        if short is not None:
            self._count_fallback(short)
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


def _sizes(num_masked: int | Tensor, num_patches: int) -> int | Tensor:
    """How many patches to sample: none of an image that stays whole, whatever the rank of its kernel."""
    if isinstance(num_masked, int):
        return num_patches - num_masked if num_masked else 0
    return torch.where(num_masked == 0, 0, num_patches - num_masked)
