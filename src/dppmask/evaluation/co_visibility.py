"""How often two patches of one image are visible together: in many masks, and exactly where that is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from dppmask.dpp import gaussian_kernel, pair_marginals
from dppmask.dpp.spectrum import decompose
from dppmask.errors import UserError
from dppmask.evaluation.progress import reported
from dppmask.masks import KDPPMask, MaskContext, MaskStrategy, RandomMask, Tokens, num_masked_for
from dppmask.rng import fold_in

BATCH = 100  # masks drawn together; their noise depends on it


@dataclass(frozen=True, eq=False)
class CoVisibility:
    """Every two of the N patches of an image under one strategy.

    Attributes:
        shares: float64 ``[N, N]``, the share of masks that show both patches; on the diagonal, the one patch.
        num_masks: How many masks were drawn.
        num_keep: How many patches each of them shows, at least 2.
        exact: The chances that the shares estimate, float64 ``[N, N]``; None where they are not known.
    """

    shares: Tensor
    num_masks: int
    num_keep: int
    exact: Tensor | None = None

    @property
    def standard_errors(self) -> Tensor:
        """Of the shares, from the shares: ``[N, N]``; 0 where all masks agree."""
        return (self.shares * (1 - self.shares) / self.num_masks).sqrt()

    @property
    def deviations(self) -> Tensor | None:
        """Shares minus exact chances, in the standard errors that these chances imply: ``[N, N]``.

        0 where what happened in all masks or in none was certain, infinite where it was impossible.
        """
        if self.exact is None:
            return None
        difference = self.shares - self.exact
        errors = (self.exact * (1 - self.exact) / self.num_masks).sqrt()
        return torch.where(difference.abs() < 1e-6, 0.0, difference / errors)

    def beside(self, patch: int, pairs: Tensor) -> Tensor:
        """Chance of each patch to be visible where ``patch`` is, as a multiple of that under random masks.

        On average over the other patches that is 1, whatever the strategy.

        Args:
            patch: From 0 to N - 1. One that is never visible gets 0 throughout.
            pairs: The shares, or the exact chances.

        Returns:
            ``[N]``; NaN at the patch itself.
        """
        alone = pairs[patch, patch]
        given = pairs[patch] / alone if alone > 0 else torch.zeros_like(pairs[patch])
        relative = given * (len(pairs) - 1) / (self.num_keep - 1)
        return relative.index_fill(0, torch.tensor(patch), torch.nan)


def co_visibility(
    context: MaskContext,
    strategies: Mapping[str, MaskStrategy],
    *,
    mask_ratio: float = 0.75,
    num_masks: int = 2000,
    seed: int = 0,
) -> dict[str, CoVisibility]:
    """Draw many masks of one image with each strategy, and count; the strategies share their noise.

    Args:
        context: One image.
        strategies: By label; all show equally many patches.
        mask_ratio: Share of hidden patches.
        num_masks: How many masks of each strategy.
        seed: Of the noise.

    Raises:
        UserError: If there are fewer than 2 masks, the ratio is outside (0, 1), or it leaves fewer than 2
            patches visible.
        ValueError: If a strategy reads what the context lacks.
    """
    num_masked = num_masked_for(mask_ratio, context.num_patches)
    num_keep = context.num_patches - num_masked
    if num_masks < 2:
        raise UserError(f"num_masks must be at least 2 for a standard error, got {num_masks}")
    if num_keep < 2:
        raise UserError(f"mask_ratio must leave at least 2 patches visible, got {mask_ratio} and {num_keep}")
    return {
        label: CoVisibility(
            visible_together(strategy, context, num_masked, num_masks=num_masks, seed=seed, title=label),
            num_masks,
            num_keep,
            exact_chances(strategy, context, num_keep),
        )
        for label, strategy in strategies.items()
    }


def visible_together(
    strategy: MaskStrategy, context: MaskContext, num_masked: int, *, num_masks: int, seed: int, title: str
) -> Tensor:
    """The share of masks of one image that show both of two patches, float64 ``[N, N]`` on the CPU."""
    counts = torch.zeros(context.num_patches, context.num_patches, dtype=torch.float64)
    batches = torch.arange(num_masks).split(BATCH)
    progress = reported(batches, title, total=num_masks, per_item=BATCH, unit="masks")
    for number, batch in enumerate(progress):
        copies = repeat_image(context, len(batch))
        with torch.no_grad():
            mask = strategy(copies, num_masked, generator=fold_in(seed, number))
        visible = (~mask.masked).double().cpu()  # [masks, N]
        counts += visible.mT @ visible
    return counts / num_masks


def exact_chances(strategy: MaskStrategy, context: MaskContext, num_keep: int) -> Tensor | None:
    """The chance that a mask of one image shows both of two patches, float64 ``[N, N]`` on the CPU.

    Known for :class:`~dppmask.masks.uniform.RandomMask` and :class:`~dppmask.masks.kdpp.KDPPMask`; None for
    all others.
    """
    if type(strategy) is RandomMask:
        empty = torch.zeros(context.num_patches, context.num_patches, dtype=torch.float64)
        return filled(empty, 0, num_keep)
    if type(strategy) is KDPPMask:
        L = gaussian_kernel(strategy.features(context)[0], bandwidth=strategy.bandwidth)
        rank = int((decompose(L)[0] > 0).sum())
        size = min(rank, num_keep)
        return filled(pair_marginals(L, k=size).double().cpu(), size, num_keep)
    return None


def filled(pairs: Tensor, size: int, num_keep: int) -> Tensor:
    """What becomes of chances when uniformly random patches fill up a sample.

    Args:
        pairs: Chance that two patches are in the sample ``[N, N]``, with that of one on the diagonal.
        size: How many patches the sample has.
        num_keep: How many are wanted, from ``size`` to N.
    """
    alone = pairs.diagonal()
    either = alone[:, None] + alone - pairs
    free, wanted = len(pairs) - size, num_keep - size
    one = wanted / max(free, 1)
    two = one * (wanted - 1) / max(free - 1, 1)
    together = pairs + (either - pairs) * one + (1 - either) * two
    return torch.where(torch.eye(len(pairs), dtype=torch.bool), alone + (1 - alone) * one, together)


def repeat_image(context: MaskContext, times: int) -> MaskContext:
    """A context of one image as one of so many copies of it; an encoder reads the image once."""

    def repeat(x: Tensor) -> Tensor:
        return x.expand(times, *x.shape[1:])

    tokens, teacher = context.tokens, context.teacher
    return MaskContext(
        None if context.images is None else repeat(context.images),
        context.grid,
        tokens=None if tokens is None else repeat(tokens),
        teacher=None
        if teacher is None
        else Tokens(
            repeat(teacher.prefix),
            repeat(teacher.patches),
            None if teacher.attention is None else repeat(teacher.attention),
        ),
    )


def rarely_exceeded(count: int, *, level: float = 0.01) -> float:
    """The deviation, in standard errors, that the largest of ``count`` exceeds so rarely if all are chance.

    A bound for numbers of any dependence (Bonferroni), each about normal.
    """
    return NormalDist().inv_cdf(1 - level / (2 * count))
