"""Visible patches by greedy MAP inference of a determinantal point process, with purge: the paper's mask."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dppmask.dpp import greedy_map_gaussian
from dppmask.dpp.checks import can_look_at
from dppmask.errors import nearest
from dppmask.masks.base import Mask
from dppmask.masks.features import FeatureMask, Source

First = Literal["noise", "argmax"]


class DPPMask(FeatureMask):
    """Keep a diverse set of patches, so that every part of the image is still to be seen.

    The first visible patch is the one with the smallest noise; then the patch with the largest marginal gain
    d² is added until the best gain is at most ``purge_ratio`` (τ). The rest of the visible set is the patches
    with the smallest noise. So τ = 0 is fully greedy, and τ = 1 equals
    :class:`~dppmask.masks.uniform.RandomMask` under equal generators. Images without enough different patches
    (flat, repeated) run out of gain, and the noise fills up.

    With ``first="argmax"`` the first pick too is the patch with the largest d², as the paper's algorithm
    reads to the letter. Before any pick every patch has d² = 1, and of equal ones the first counts: each mask
    shows the top left patch. The noise then decides only what is filled: with τ = 0 every mask of an image is
    the same, unless the gain runs out.

    The scores of the mask are the gain of each greedy pick at its patch, 0 at filled and at hidden patches.

    Args:
        purge_ratio: τ in [0, 1].
        source: What is compared: "tokens", "pixels" or "teacher".
        bandwidth: σ of the Gaussian kernel on L2-normalised features.
        first: How the first patch is picked: "noise" or "argmax".

    Raises:
        ValueError: If an argument is outside its range.

    Source: DPPMask: Masked Image Modeling with Determinantal Point Processes, sections 3.2 and 3.3; greedy
        MAP by incremental Cholesky: Chen, Zhang and Zhou (2018), Algorithm 1.
    """

    def __init__(
        self,
        purge_ratio: float = 0.3,
        source: Source = "tokens",
        bandwidth: float = 1.0,
        first: First = "noise",
    ) -> None:
        super().__init__(source=source, bandwidth=bandwidth)
        check_purge_ratio("purge_ratio", purge_ratio)
        if first not in get_args(First):
            hint = nearest(str(first), get_args(First))
            raise ValueError(f"first must say how the first patch is picked, got {first!r}; {hint}")
        self.purge_ratio = purge_ratio
        self.first = first
        self.is_random = first == "noise" or purge_ratio > 0.0

    def choose(self, features: Tensor, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask as a pure function of features ``[B, N, D]``, noise ``[B, N]`` and counts."""
        return self.choose_at(self.purge_ratio, features, noise, num_masked)

    def choose_at(
        self, purge_ratio: float | Tensor, features: Tensor, noise: Tensor, num_masked: int | Tensor
    ) -> Mask:
        """:meth:`choose` at another τ.

        Rows with different counts share one greedy run at the largest number of visible patches: a shorter
        run is its prefix.

        Args:
            purge_ratio: τ, or one of each image, float32 ``[B]``: a tensor compiles and captures once for
                all its values.
            features: Float32 ``[B, N, D]``, of any length.
            noise: ``[B, N]`` in [0, 1).
            num_masked: One count, or int64 ``[B]``.
        """
        k = _largest_num_keep(num_masked, noise.shape[1])
        picks = greedy_map_gaussian(
            features,
            k,
            bandwidth=self.bandwidth,
            threshold=purge_ratio,
            first=noise.argmin(1) if self.first == "noise" else None,
        )
        turn = torch.arange(-k, 0, device=noise.device)  # negative: picks come before any noise, in turn
        mask = Mask.from_scores(place(turn, picks.items, noise), num_masked)
        gains = place(picks.gains, picks.items, torch.zeros_like(noise))
        return Mask(mask.masked, mask.num_masked, scores=gains.masked_fill(mask.masked, 0.0))


def check_purge_ratio(name: str, value: float) -> None:
    """Raise ``ValueError`` unless an option that is a purge ratio is in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value}; 0 is fully greedy, 1 is random")


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
