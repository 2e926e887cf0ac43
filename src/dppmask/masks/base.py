"""How many patches are hidden, and what a strategy is. Knows no network.

The mask and the context are values in files of their own; a strategy can import all it needs from here.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from dppmask.dpp.checks import can_look_at
from dppmask.errors import UserError
from dppmask.masks.context import MaskContext, Tokens
from dppmask.masks.mask import Mask, ranks, take

__all__ = [
    "Mask",
    "MaskContext",
    "MaskRatio",
    "MaskStrategy",
    "Tokens",
    "check_counts",
    "check_ratio",
    "draw_noise",
    "num_masked_for",
    "ranks",
    "take",
]


def num_masked_for(mask_ratio: float, num_patches: int) -> int:
    """How many of ``num_patches`` a ratio hides: ``round(mask_ratio * N)``, at least 1 and at most N - 1.

    The one place where this convention is decided.

    Raises:
        UserError: If the ratio is outside (0, 1) or there are fewer than two patches.
    """
    check_ratio(mask_ratio)
    if num_patches < 2:
        raise UserError(f"a mask needs at least 2 patches, got {num_patches}; use a smaller patch_size")
    return min(max(round(mask_ratio * num_patches), 1), num_patches - 1)


def check_ratio(mask_ratio: float) -> None:
    """Raise ``UserError`` unless the ratio is in the open interval (0, 1)."""
    if not 0.0 < mask_ratio < 1.0:
        raise UserError(f"mask_ratio must be in (0, 1), got {mask_ratio}; MAE uses 0.75")


class MaskStrategy(nn.Module):
    """Chooses which patches of each image are hidden.

    A subclass says what it reads in ``needs`` and implements :meth:`choose`, a pure function that compiles
    and captures; reading the context goes into :meth:`features`. The constructor takes plain keyword numbers
    and keeps them under their names.

    Attributes:
        needs: Subset of {"images", "tokens", "teacher", "attention"}; checked before training starts.
        syncs: Whether choosing a mask waits for the device.
        exact: Whether every row hides just the count asked for; methods that need equal counts refuse others.
        is_random: Whether equal images may get different masks; False where what is read decides alone.
    """

    needs: frozenset[str] = frozenset()
    syncs: bool = False
    exact: bool = True
    is_random: bool = True

    def forward(self, context: MaskContext, num_masked: int | Tensor, *, generator: torch.Generator) -> Mask:
        """Hide exactly ``num_masked`` patches of each row (see ``exact``).

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
