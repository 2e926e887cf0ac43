"""What a mask is, what a strategy may read, and how many patches are hidden. Knows no network."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dppmask.dpp.checks import can_look_at


def num_masked_for(mask_ratio: float, num_patches: int) -> int:
    """How many of ``num_patches`` a ratio hides: ``round(mask_ratio * N)``, at least 1 and at most N - 1.

    The one place where this convention is decided.

    Raises:
        ValueError: If the ratio is outside (0, 1) or there are fewer than two patches.
    """
    check_ratio(mask_ratio)
    if num_patches < 2:
        raise ValueError(f"a mask needs at least 2 patches, got {num_patches}; use a smaller patch_size")
    return min(max(round(mask_ratio * num_patches), 1), num_patches - 1)


def check_ratio(mask_ratio: float) -> None:
    """Raise ``ValueError`` unless the ratio is in the open interval (0, 1)."""
    if not 0.0 < mask_ratio < 1.0:
        raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio}; MAE uses 0.75")


def take(x: Tensor, ids: Tensor) -> Tensor:
    """Gather patches by index: ``x [B, N, D]``, ``ids [B, K]`` → ``[B, K, D]``."""
    return x.gather(1, ids[:, :, None].expand(-1, -1, x.shape[-1]))


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
            ValueError: If an index repeats within a row (looked at on the CPU only, as in
                :func:`check_counts`).
        """
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


def inverse_permutation(permutation: Tensor) -> Tensor:
    """The inverse of each row of int64 ``[B, N]``, in O(N) and without a sort."""
    ids = torch.arange(permutation.shape[1], device=permutation.device).expand_as(permutation)
    return torch.empty_like(permutation).scatter_(1, permutation, ids)


def ranks(values: Tensor) -> Tensor:
    """Rank of each entry in its row, 0 = smallest, ties by position: ``[B, N]`` → int64 ``[B, N]``."""
    return inverse_permutation(values.argsort(dim=1, stable=True))


@dataclass(frozen=True, eq=False)
class Tokens:
    """What an encoder returns.

    Attributes:
        prefix: ``[B, P, D]``, class and register tokens.
        patches: ``[B, N, D]``.
        attention: ``[B, heads, N]``, last block, class token → patches; only when asked for.
    """

    prefix: Tensor
    patches: Tensor
    attention: Tensor | None = None


class MaskContext:
    """What is known about a batch when its mask is chosen.

    ``tokens`` and ``teacher`` may be given as functions; they run at first touch and the method then shares
    the result, so a strategy that reads them costs no second pass.

    Args:
        images: ``[B, C, H, W]``, normalised.
        grid: (rows, columns) of patches; needed wherever images are read.
        progress: Share of the training done, from 0 to 1.
        epoch: The current epoch, from 0.
        tokens: ``[B, N, D]``, the student's patch embedding plus position, *with* gradient: strategies read
            it detached.
        teacher: :class:`Tokens` of the EMA or frozen teacher on the unmasked images.
        sample_ids: int64 ``[B]``, the index of each image in its data set.
        crops: float ``[B, 5]``: top, left, height, width (pixels of the stored image), flip (0 or 1).
    """

    def __init__(
        self,
        images: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        progress: float = 0.0,
        epoch: int = 0,
        tokens: Tensor | Callable[[], Tensor] | None = None,
        teacher: Tokens | Callable[[], Tokens] | None = None,
        sample_ids: Tensor | None = None,
        crops: Tensor | None = None,
    ) -> None:
        self.images = images
        self.grid = grid
        self.progress = progress
        self.epoch = epoch
        self.sample_ids = sample_ids
        self.crops = crops
        self._tokens = tokens
        self._teacher = teacher

    @classmethod
    def from_tokens(cls, x: Tensor, grid: tuple[int, int] | None = None) -> "MaskContext":
        """The context of somebody else's model: only its patch tokens ``[B, N, D]`` are known."""
        return cls(tokens=x, grid=grid)

    @property
    def tokens(self) -> Tensor | None:
        """``[B, N, D]``, computed at first touch."""
        if callable(self._tokens):
            self._tokens = self._tokens()
        return self._tokens

    @property
    def teacher(self) -> Tokens | None:
        """The teacher's tokens, computed at first touch."""
        if callable(self._teacher):
            self._teacher = self._teacher()
        return self._teacher

    @property
    def has_tokens(self) -> bool:
        """Whether tokens are known or can be computed (without computing them)."""
        return self._tokens is not None

    @property
    def has_teacher(self) -> bool:
        """Whether the teacher's tokens are known or can be computed."""
        return self._teacher is not None

    @property
    def provides(self) -> frozenset[str]:
        """What a strategy may read here, in the words of ``MaskStrategy.needs``; computes nothing."""
        known = {"images": self.images is not None, "tokens": self.has_tokens}
        known |= dict.fromkeys(("teacher", "attention"), self.has_teacher)
        return frozenset(name for name, is_known in known.items() if is_known)

    @property
    def num_patches(self) -> int:
        """N, from the grid where it is known, else from the tokens."""
        if self.grid is not None:
            return self.grid[0] * self.grid[1]
        return self._any_patches().shape[1]

    @property
    def batch_size(self) -> int:
        """B."""
        return self.images.shape[0] if self.images is not None else self._any_patches().shape[0]

    @property
    def device(self) -> torch.device:
        """Where the mask is wanted."""
        return self.images.device if self.images is not None else self._any_patches().device

    def _any_patches(self) -> Tensor:
        if self.has_tokens and (tokens := self.tokens) is not None:
            return tokens
        if self.has_teacher and (teacher := self.teacher) is not None:
            return teacher.patches
        raise ValueError("a MaskContext needs images and grid, or tokens, or teacher; got none of them")


class MaskStrategy(nn.Module):
    """Chooses which patches of each image are hidden.

    A subclass says what it reads in ``needs`` and implements :meth:`choose`, a pure function that compiles
    and captures; reading the context goes into :meth:`features`. The constructor takes plain keyword numbers
    and keeps them under their names.

    Attributes:
        needs: Subset of {"images", "tokens", "teacher", "attention"}; checked before training starts.
        syncs: Whether choosing a mask waits for the device.
    """

    needs: frozenset[str] = frozenset()
    syncs: bool = False

    def forward(self, context: MaskContext, num_masked: int | Tensor, *, generator: torch.Generator) -> Mask:
        """Hide exactly ``num_masked`` patches of each row.

        Args:
            context: The batch.
            num_masked: One count for all rows, or int64 ``[B]`` (the mask is then ragged).
            generator: The only source of randomness. Its device decides where the noise is drawn.

        Raises:
            ValueError: If a count is outside [0, N - 1], or the context lacks what the strategy needs.
            TypeError: If a count is not an integer.
        """
        if missing := self.needs - context.provides:
            has = ", ".join(sorted(context.provides)) or "nothing"
            raise ValueError(
                f"{type(self).__name__} needs {', '.join(sorted(missing))}, but this context has {has}; "
                "pass it to MaskContext or use another strategy"
            )
        check_counts(num_masked, batch_size=context.batch_size, num_patches=context.num_patches)
        noise = draw_noise(context, generator)
        return self.choose(self.features(context), noise, num_masked)

    def features(self, context: MaskContext) -> Any:
        """What the choice depends on, detached: tensors and plain numbers; None = the noise alone."""
        return None

    def choose(self, features: Any, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask as a pure function of :meth:`features`, noise ``[B, N]`` and counts."""
        raise NotImplementedError(f"{type(self).__name__} must implement choose or forward")

    def objective(self, mask: Mask, patch_loss: Tensor) -> Tensor | None:
        """The extra loss of a learned strategy; None for all others."""
        return None

    def extra_repr(self) -> str:
        """The constructor's arguments, where modules are printed."""
        kept = vars(self)  # without submodules, which torch prints itself
        names = [name for name in inspect.signature(type(self)).parameters if name in kept]
        return ", ".join(f"{name}={kept[name]!r}" for name in names)


def check_counts(num_masked: int | Tensor, *, batch_size: int, num_patches: int) -> None:
    """Refuse counts that are no integers, of the wrong shape, negative, or leave no patch visible.

    The values of a tensor on an accelerator are trusted: looking at them would wait for the device.

    Raises:
        TypeError: If ``num_masked`` is neither an int nor an int64 tensor.
        ValueError: If its shape is not ``[B]`` or a value is outside [0, N - 1].
    """
    if isinstance(num_masked, Tensor):
        if num_masked.dtype != torch.int64:
            raise TypeError(f"num_masked must be int64, got a tensor of {num_masked.dtype}")
        if num_masked.shape != (batch_size,):
            raise ValueError(f"num_masked must have shape [{batch_size}], got {list(num_masked.shape)}")
        if not can_look_at(num_masked):
            return
        low, high = (int(value) for value in num_masked.aminmax())
    elif isinstance(num_masked, int):
        low = high = num_masked
    else:
        raise TypeError(
            f"num_masked must be a number of patches (int), got {num_masked!r}; "
            "num_masked_for turns a ratio into one"
        )
    if low < 0 or high > num_patches - 1:
        raise ValueError(
            f"num_masked must be in [0, {num_patches - 1}] for {num_patches} patches, got {low}…{high}"
        )


def draw_noise(context: MaskContext, generator: torch.Generator) -> Tensor:
    """The one uniform draw of a strategy, float32 ``[B, N]``, on the context's device."""
    shape = (context.batch_size, context.num_patches)
    return torch.rand(shape, generator=generator, device=generator.device).to(
        context.device, non_blocking=True
    )


class MaskRatio:
    """The share of patches to hide: fixed, or drawn from an interval.

    Args:
        ratio: A number in (0, 1), or (low, high) for a uniform draw.
        probability: Chance that an image is masked at all; below 1 some images stay whole.

    Raises:
        ValueError: If a ratio is outside (0, 1), the interval is empty, or the probability is outside (0, 1].
    """

    def __init__(self, ratio: float | tuple[float, float], *, probability: float = 1.0) -> None:
        interval = (ratio, ratio) if isinstance(ratio, int | float) else tuple(ratio)
        if len(interval) != 2:
            raise ValueError(f"mask_ratio must be a number or (low, high), got {ratio}")
        self.ratio = ratio
        self.low, self.high = interval
        check_ratio(self.low)
        check_ratio(self.high)
        if self.low > self.high:
            raise ValueError(
                f"mask_ratio must be (low, high) with low <= high, got ({self.low}, {self.high})"
            )
        if not 0.0 < probability <= 1.0:
            raise ValueError(f"mask probability must be in (0, 1], got {probability}")
        self.probability = probability

    def __repr__(self) -> str:
        return f"MaskRatio({self.ratio}, probability={self.probability})"

    def draw(self, num_patches: int, *, generator: torch.Generator) -> int:
        """One count for a whole batch, decided on the CPU (methods that need equal counts).

        Raises:
            ValueError: If ``probability`` is below 1: rows would differ.
        """
        if self.probability < 1.0:
            raise ValueError(
                f"mask probability {self.probability} leaves some images whole, but this method needs equal "
                "counts in a batch; use probability 1.0"
            )
        return num_masked_for(self._uniform(1, generator).item(), num_patches)

    def draw_per_image(self, batch_size: int, num_patches: int, *, generator: torch.Generator) -> Tensor:
        """One count per image, int64 ``[B]`` on the CPU; 0 where an image stays whole."""
        ratios = self._uniform(batch_size, generator).tolist()
        counts = torch.tensor([num_masked_for(ratio, num_patches) for ratio in ratios])
        whole = torch.rand(batch_size, generator=generator) >= self.probability
        return counts.masked_fill(whole, 0)

    def _uniform(self, count: int, generator: torch.Generator) -> Tensor:
        unit = torch.rand(count, generator=generator, dtype=torch.float64)
        return self.low + (self.high - self.low) * unit
