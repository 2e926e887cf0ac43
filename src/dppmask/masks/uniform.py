"""Uniformly random masks: what MAE does, and the baseline of everything else."""

from torch import Tensor

from dppmask.masks.base import Mask, MaskStrategy


class RandomMask(MaskStrategy):
    """Keep the patches with the smallest noise: every set of visible patches is equally likely.

    Source: He et al. (2022), *Masked Autoencoders Are Scalable Vision Learners*, section 3.
    """

    def choose(self, features: None, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """Hide the ``num_masked`` patches of each row with the largest noise ``[B, N]``."""
        return Mask.from_scores(noise, num_masked)
