"""Masks guided by attention: hide what a teacher's class token looks at, perhaps with a few hints left."""

import math
from typing import Literal, get_args

from torch import Tensor

from dppmask.dpp.checks import check_finite
from dppmask.errors import nearest
from dppmask.masks.base import Mask, MaskContext, MaskStrategy
from dppmask.masks.mask import inverse_permutation, ranks
from dppmask.masks.streams import uniforms

Variant = Literal["high", "hint", "low"]

_ROUNDING = 1e-9  # floor(0.29 · 100) is meant to be 29


class AttMask(MaskStrategy):
    """Hide the patches that the class token of a teacher attends to most, or least.

    Attention is that of the teacher's last block, its mean over heads, on the whole image. Equal attention is
    ordered by the noise.

    - "high": the ``num_masked`` patches with the largest attention are hidden.
    - "low": those with the smallest.
    - "hint": as "high", but some of the most attended patches are shown. Of the ``floor(show_max · N)``
      patches with the largest attention ``floor(show_max · r · N)`` are drawn without replacement, where r is
      uniform in ``show_ratio`` for every image. On a small grid that may be none.

    With ``exact=True`` the patches next in attention are hidden for those shown, and a hint is hidden again,
    the most attended first, only where so many patches are to be hidden that no others are left. With
    ``exact=False`` nothing replaces the hints, as in the original: up to that many patches fewer are hidden,
    and rows have different counts. The ratio of hidden patches, which the original draws once for a whole
    batch, is not decided here but by :class:`~dppmask.masks.base.MaskRatio`.

    Args:
        variant: "high", "hint" or "low".
        show_max: Share of the patches among which hints are drawn, in [0, 1].
        show_ratio: (low, high) in [0, 1]: the share of these that is shown; the original takes the bounds of
            its ratio of hidden patches.
        exact: Whether every row hides exactly the count.

    Raises:
        ValueError: If an argument is out of range; when a mask is chosen, if the teacher comes without
            attention, or it does not fit the grid or is not finite (looked at on the CPU only).

    Source: Kakogeorgiou et al. (2022), *What to Hide from Your Students: Attention-Guided Masked Image
        Modeling*, section 3.2.
    """

    needs = frozenset({"attention"})

    def __init__(
        self,
        variant: Variant = "high",
        show_max: float = 0.1,
        show_ratio: tuple[float, float] = (0.1, 0.5),
        exact: bool = True,
    ) -> None:
        super().__init__()
        if variant not in get_args(Variant):
            hint = nearest(str(variant), get_args(Variant))
            raise ValueError(f"variant must say which attention is hidden, got {variant!r}; {hint}")
        if not 0.0 <= show_max <= 1.0:
            raise ValueError(f"show_max must be in [0, 1], got {show_max}; AttMask uses 0.1")
        low, high = show_ratio
        if not 0.0 <= low <= high <= 1.0:
            raise ValueError(
                f"show_ratio must be (low, high) with 0 <= low <= high <= 1, got ({low}, {high}); "
                "AttMask uses (0.1, 0.5)"
            )
        self.variant = variant
        self.show_max = show_max
        self.show_ratio = show_ratio
        self.exact = exact
        self.is_random = variant == "hint"

    def features(self, context: MaskContext) -> Tensor:
        """Mean attention over heads, float32 ``[B, N]``, detached."""
        teacher = context.teacher
        if teacher is None or teacher.attention is None:
            raise ValueError(
                "AttMask needs the attention of the teacher; encode its images with attention=True"
            )
        attention = teacher.attention.detach().float().mean(1)
        if attention.shape != (context.batch_size, context.num_patches):
            raise ValueError(
                f"attention must have shape [{context.batch_size}, heads, {context.num_patches}] "
                f"for grid {context.grid}, got {list(teacher.attention.shape)}"
            )
        check_finite(attention, "attention")
        return attention

    def choose(self, features: Tensor, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask as a pure function of attention ``[B, N]``, noise ``[B, N]`` and counts."""
        rank = ranks_by_noise(-features if self.variant == "low" else features, noise)
        if self.variant != "hint":
            return Mask.from_scores(rank, num_masked)
        hints = self.draw_hints(rank, noise)
        if self.exact:
            return Mask.from_scores(rank - rank.shape[1] * hints, num_masked)  # hints come last
        return Mask(Mask.from_scores(rank, num_masked).masked & ~hints)

    def draw_hints(self, rank: Tensor, noise: Tensor) -> Tensor:
        """Which patches are shown, bool ``[B, N]``, from the ranks of their attention."""
        num_patches = rank.shape[1]
        num_candidates = math.floor(self.show_max * num_patches + _ROUNDING)
        low, high = self.show_ratio
        ratio = low + (high - low) * uniforms(noise, 1).double()  # [B, 1]
        num_hints = (self.show_max * num_patches * ratio + _ROUNDING).floor()
        candidate = rank >= num_patches - num_candidates
        turn = ranks(noise.masked_fill(~candidate, 1.0))  # candidates first: all noise is below 1
        return candidate & (turn < num_hints)


def ranks_by_noise(values: Tensor, noise: Tensor) -> Tensor:
    """Rank of each entry in its row, 0 = smallest, ties by noise: ``[B, N]`` → int64 ``[B, N]``."""
    by_noise = noise.argsort(dim=1)
    by_value = values.gather(1, by_noise).argsort(dim=1, stable=True)
    return inverse_permutation(by_noise.gather(1, by_value))
