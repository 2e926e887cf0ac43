"""Visible patches by greedy MAP inference of a determinantal point process, with purge: the paper's mask."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dppmask.dpp import greedy_map_gaussian
from dppmask.dpp.checks import can_look_at
from dppmask.masks.base import Mask
from dppmask.masks.features import FeatureMask, Source


class DPPMask(FeatureMask):
    """Keep a diverse set of patches, so that every part of the image is still to be seen.

    The first visible patch is the one with the smallest noise; then the patch with the largest marginal gain
    d² is added until the best gain is at most ``purge_ratio`` (τ). The rest of the visible set is the patches
    with the smallest noise. So τ = 0 is fully greedy, and τ = 1 equals
    :class:`~dppmask.masks.uniform.RandomMask` under equal generators. Images without enough different patches
    (flat, repeated) run out of gain, and the noise fills up.

    The scores of the mask are the gain of each greedy pick at its patch, 0 at filled and at hidden patches.

    Args:
        purge_ratio: τ in [0, 1].
        source: What is compared: "tokens", "pixels" or "teacher".
        bandwidth: σ of the Gaussian kernel on L2-normalised features.

    Raises:
        ValueError: If an argument is outside its range.

    Source: DPPMask: Masked Image Modeling with Determinantal Point Processes, sections 3.2 and 3.3; greedy
        MAP by incremental Cholesky: Chen, Zhang and Zhou (2018), Algorithm 1.
    """

    def __init__(self, purge_ratio: float = 0.3, source: Source = "tokens", bandwidth: float = 1.0) -> None:
        super().__init__(source=source, bandwidth=bandwidth)
        if not 0.0 <= purge_ratio <= 1.0:
            raise ValueError(
                f"purge_ratio must be in [0, 1], got {purge_ratio}; 0 is fully greedy, 1 is random"
            )
        self.purge_ratio = purge_ratio

    def choose(self, features: Tensor, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask as a pure function.

        Rows with different counts share one greedy run at the largest number of visible patches: a shorter
        run is its prefix.

        Args:
            features: Float32 ``[B, N, D]``, of any length.
            noise: ``[B, N]`` in [0, 1).
            num_masked: One count, or int64 ``[B]``.
        """
        k = _largest_num_keep(num_masked, noise.shape[1])
        picks = greedy_map_gaussian(
            features, k, bandwidth=self.bandwidth, threshold=self.purge_ratio, first=noise.argmin(1)
        )
        turn = torch.arange(-k, 0, device=noise.device)  # negative: picks come before any noise, in turn
        mask = Mask.from_scores(place(turn, picks.items, noise), num_masked)
        gains = place(picks.gains, picks.items, torch.zeros_like(noise))
        return Mask(mask.masked, mask.num_masked, scores=gains.masked_fill(mask.masked, 0.0))


def place(values: Tensor, items: Tensor, background: Tensor) -> Tensor:
    """Write ``values [k]`` or ``[B, k]`` at ``items [B, k]`` of ``background [B, N]``; -1 is nowhere."""
    num_patches = background.shape[1]
    spare = F.pad(background, (0, 1))  # column N takes what belongs nowhere
    index = items.where(items >= 0, num_patches)
    return spare.scatter(1, index, values.to(background.dtype).expand_as(items))[:, :num_patches]


def _largest_num_keep(num_masked: int | Tensor, num_patches: int) -> int:
    """The longest greedy run any row needs; N where the counts lie on an accelerator, not to wait for it."""
    if isinstance(num_masked, int):
        return num_patches - num_masked
    return num_patches - int(num_masked.min()) if can_look_at(num_masked) else num_patches
