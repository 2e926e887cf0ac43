"""Our masks inside any model that samples them with a method ``random_masking(x, mask_ratio)``, as MAE does.

with use_masks(model, DPPMask(), generator=torch.Generator().manual_seed(0)):
    loss, prediction, mask = model(images, mask_ratio=0.75)
"""

from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from dppmask.masks.base import Mask, MaskContext, MaskStrategy, num_masked_for, take

METHOD = "random_masking"


def use_masks(
    model: nn.Module,
    strategy: MaskStrategy,
    *,
    generator: torch.Generator,
    grid: tuple[int, int] | None = None,
) -> "InstalledMasks":
    """Let ``strategy`` choose the masks of ``model``, until ``remove()`` or the end of a ``with`` block.

    Nothing but the instance's ``random_masking`` is replaced: weights, state dict and class stay as they are.
    The number of hidden patches is ours, ``round(mask_ratio · N)``, where MAE rounds the visible ones down; a
    ratio of 0 hides nothing.

    Args:
        model: A model whose ``random_masking(x [B, N, D], mask_ratio)`` returns the visible patches
            ``[B, K, D]``, a float mask ``[B, N]`` (1 = hidden) and ``ids_restore`` int64 ``[B, N]``.
        strategy: Any strategy that needs no more than tokens.
        generator: The source of randomness; each forward pass draws from it once.
        grid: (rows, columns) of patches, for strategies that ask for it.

    Raises:
        TypeError: If the model has no such method.
        ValueError: If the strategy needs more than tokens, or another one is at work in the model.
    """
    if not callable(getattr(model, METHOD, None)):
        raise TypeError(
            f"{type(model).__name__} has no {METHOD}(x, mask_ratio) to replace; pass the module that has it, "
            "or for transformers' ViTMAE use dppmask.adapters.hf_vitmae"
        )
    if strategy.needs - {"tokens"}:
        raise ValueError(
            f"{METHOD} sees tokens only, but {type(strategy).__name__} needs "
            f"{', '.join(sorted(strategy.needs))}; use source='tokens'"
        )
    if isinstance(getattr(vars(model).get(METHOD), "__self__", None), InstalledMasks):
        raise ValueError(f"{type(model).__name__} has a mask strategy already; call its remove() first")
    return InstalledMasks(model, strategy, generator, grid)


class InstalledMasks:
    """A strategy at work inside somebody else's model.

    Attributes:
        last_mask: The :class:`Mask` of the latest forward pass, for pictures and logs; None before the first.
    """

    def __init__(
        self,
        model: nn.Module,
        strategy: MaskStrategy,
        generator: torch.Generator,
        grid: tuple[int, int] | None,
    ) -> None:
        self.model = model
        self.strategy = strategy
        self.generator = generator
        self.grid = grid
        self.last_mask: Mask | None = None
        self._previous = vars(model).get(METHOD)
        vars(model)[METHOD] = self.random_masking

    def random_masking(self, x: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        """What the model calls instead of its own method."""
        num_masked = 0 if mask_ratio == 0 else num_masked_for(mask_ratio, x.shape[1])
        context = MaskContext.from_tokens(x, self.grid)
        mask = self.last_mask = self.strategy(context, num_masked, generator=self.generator)
        return take(x, mask.ids_keep), mask.masked.float(), mask.ids_restore

    def remove(self) -> None:
        """Give the model its own method back; a second call does nothing."""
        if vars(self.model).get(METHOD) != self.random_masking:
            return
        if self._previous is None:
            del vars(self.model)[METHOD]
        else:
            vars(self.model)[METHOD] = self._previous

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()
