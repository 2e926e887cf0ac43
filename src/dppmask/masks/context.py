"""What is known about a batch of images when its mask is chosen."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


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
        crops: int64 ``[B, 5]``: top, left, height, width (pixels of the stored image), flip (0 or 1).
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
