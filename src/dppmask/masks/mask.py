"""The mask as a value: which patches of each image are hidden, and its index views."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dppmask.dpp.checks import can_look_at


@dataclass(frozen=True, eq=False)
class Mask:
    """Which patches are hidden, for a batch of images; patches are row-major and prefix tokens do not count.

    Attributes:
        masked: bool ``[B, N]``; True = hidden from the encoder.
        num_masked: The number of hidden patches of every row, or None where rows may differ (a ragged mask).
        target: bool ``[B, N]``, what the loss scores; None = every masked patch. A patch that is masked but
            not a target is neither encoded nor decoded.
        scores: float ``[B, N]``, what the strategy believed. DPP masks: the gain of each greedy pick, 0
            elsewhere.
        soft: float ``[B, N]``, the differentiable stand-in of learned strategies.
    """

    masked: Tensor
    num_masked: int | None = None
    target: Tensor | None = None
    scores: Tensor | None = None
    soft: Tensor | None = None

    @classmethod
    def from_bool(
        cls,
        masked: Tensor,
        *,
        num_masked: int | None = None,
        target: Tensor | None = None,
        scores: Tensor | None = None,
        soft: Tensor | None = None,
    ) -> "Mask":
        """A mask from ``masked`` bool ``[B, N]``.

        Without ``num_masked`` the rows are counted, which on an accelerator waits for the device; a caller
        who knows the count passes it and is believed.

        Raises:
            TypeError: If ``masked`` is not Boolean.
            ValueError: If it is not two-dimensional.
        """
        if masked.dtype != torch.bool:
            raise TypeError(f"masked must be a bool tensor (True = hidden), got {masked.dtype}")
        if masked.ndim != 2:
            raise ValueError(f"masked must have shape [batch, patches], got {list(masked.shape)}")
        if num_masked is None:
            counts = masked.sum(1).unique().tolist()
            num_masked = counts[0] if len(counts) == 1 else None
        return cls(masked, num_masked, target, scores, soft)

    @classmethod
    def from_scores(cls, scores: Tensor, num_masked: int | Tensor, **fields: Tensor | None) -> "Mask":
        """Hide the ``num_masked`` largest scores of each row; of equal scores the later one is hidden.

        Args:
            scores: float ``[B, N]``.
            num_masked: One count for all rows, or int64 ``[B]``.
            fields: ``target``, ``scores``, ``soft`` of the mask.
        """
        rank = ranks(scores)
        num_patches = scores.shape[1]
        if isinstance(num_masked, Tensor):
            counts = num_masked.to(scores.device, non_blocking=True)
            return cls(rank >= num_patches - counts[:, None], None, **fields)
        return cls(rank >= num_patches - num_masked, num_masked, **fields)

    @classmethod
    def from_ids_keep(cls, ids: Tensor, *, num_patches: int, **fields: Tensor | None) -> "Mask":
        """A mask from the indices of the visible patches, int64 ``[B, K]``, all different within a row.

        Args:
            ids: Visible patches in any order.
            num_patches: N.
            fields: ``target``, ``scores``, ``soft`` of the mask.

        Raises:
            ValueError: If an index is outside [0, N - 1] or repeats within a row (looked at on the CPU only,
                as in :func:`check_counts`).
        """
        if can_look_at(ids) and ((ids < 0) | (ids >= num_patches)).any():
            low, high = (int(value) for value in ids.aminmax())
            raise ValueError(f"ids of visible patches must be in [0, {num_patches - 1}], got {low}…{high}")
        masked = ids.new_ones(ids.shape[0], num_patches, dtype=torch.bool).scatter(1, ids, False)
        num_masked = num_patches - ids.shape[1]
        if can_look_at(masked) and (masked.sum(1) != num_masked).any():
            raise ValueError("ids of visible patches must all differ within a row, got a repeated one")
        return cls(masked, num_masked, **fields)

    @property
    def num_patches(self) -> int:
        """N."""
        return self.masked.shape[1]

    @property
    def ids_restore(self) -> Tensor:
        """int64 ``[B, N]``: where patch i stands in the sequence [visible ascending, hidden ascending]."""
        visible = ~self.masked
        hidden_position = self.masked.cumsum(1) + (self.num_patches - self._equal_count())
        return torch.where(visible, visible.cumsum(1), hidden_position) - 1

    @property
    def ids_keep(self) -> Tensor:
        """int64 ``[B, K]``: the visible patches, ascending. Raises ValueError on a ragged mask."""
        return self._order()[:, : self.num_patches - self._equal_count()]

    @property
    def ids_mask(self) -> Tensor:
        """int64 ``[B, M]``: the hidden patches, ascending. Raises ValueError on a ragged mask."""
        return self._order()[:, self.num_patches - self._equal_count() :]

    @property
    def targets(self) -> Tensor:
        """What the loss scores, bool ``[B, N]``: ``target``, or every masked patch."""
        return self.masked if self.target is None else self.target

    def to(self, device: torch.device | str) -> "Mask":
        """The same mask on another device."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device)

        masked = self.masked.to(device)
        return Mask(masked, self.num_masked, move(self.target), move(self.scores), move(self.soft))

    def _order(self) -> Tensor:
        return inverse_permutation(self.ids_restore)

    def _equal_count(self) -> int:
        if self.num_masked is None:
            raise ValueError(
                "this mask hides a different number of patches in each image, so it has no dense index; "
                "read `masked`, or use a method whose needs_equal_counts is False"
            )
        return self.num_masked


def take(x: Tensor, ids: Tensor) -> Tensor:
    """Gather patches by index: ``x [B, N, D]``, ``ids [B, K]`` → ``[B, K, D]``."""
    return x.gather(1, ids[:, :, None].expand(-1, -1, x.shape[-1]))


def inverse_permutation(permutation: Tensor) -> Tensor:
    """The inverse of each row of int64 ``[B, N]``, in O(N) and without a sort."""
    ids = torch.arange(permutation.shape[1], device=permutation.device).expand_as(permutation)
    return torch.empty_like(permutation).scatter_(1, permutation, ids)


def ranks(values: Tensor) -> Tensor:
    """Rank of each entry in its row, 0 = smallest, ties by position: ``[B, N]`` → int64 ``[B, N]``."""
    return inverse_permutation(values.argsort(dim=1, stable=True))
