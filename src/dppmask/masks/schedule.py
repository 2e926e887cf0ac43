"""Masks that change over the training."""

from torch import Tensor

from dppmask.masks.base import Mask, MaskContext, MaskStrategy
from dppmask.masks.dpp import DPPMask, check_purge_ratio


class PurgeSchedule(MaskStrategy):
    """A DPP mask whose purge ratio moves on a line, from its own at the first step to ``end`` at the last.

    At every step the mask is that of a :class:`~dppmask.masks.dpp.DPPMask` with the τ of
    ``context.progress``, so a run that is resumed goes on where it stopped. A context that does not say how
    far the training is has progress 0; statistics of masks and galleries show the middle of the training.

    Args:
        strategy: The mask at the start.
        end: τ in [0, 1] at the end.

    Raises:
        ValueError: If ``end`` is outside its range.
    """

    def __init__(self, strategy: DPPMask, end: float) -> None:
        super().__init__()
        check_purge_ratio("end", end)
        self.strategy = strategy
        self.end = end
        self.needs = strategy.needs
        self.is_random = strategy.is_random or end > 0.0

    def purge_ratio_at(self, progress: float) -> float:
        """τ after that share of the training."""
        start = self.strategy.purge_ratio
        return start + (self.end - start) * min(max(progress, 0.0), 1.0)

    def features(self, context: MaskContext) -> tuple[Tensor, Tensor]:
        """What the mask reads, ``[B, N, D]``, and τ of each image, ``[B]``, written without a wait."""
        patches = self.strategy.features(context)
        return patches, patches.new_full(patches.shape[:1], self.purge_ratio_at(context.progress))

    def choose(self, features: tuple[Tensor, Tensor], noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask as a pure function of :meth:`features`, noise ``[B, N]`` and counts."""
        patches, purge_ratio = features
        return self.strategy.choose_at(purge_ratio, patches, noise, num_masked)
