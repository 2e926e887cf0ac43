"""Teachers: copies of a network that no gradient trains, moving averages of a student or frozen for good."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dppmask.errors import UserError
from dppmask.masks.base import Tokens
from dppmask.models.encoder import Encoder
from dppmask.models.weights import load_encoder

EMA = "ema"


class Teacher(nn.Module):
    """An encoder, and further parts by name, that are never trained and always in evaluation mode.

    Args:
        encoder: Taken as it is.
        parts: Further modules, which become attributes of the same names.
    """

    encoder: Encoder

    def __init__(self, encoder: Encoder, **parts: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        for name, part in parts.items():
            self.add_module(name, part)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Does nothing: no path of a teacher is ever dropped."""
        return super().train(False)

    @torch.no_grad()
    def tokens(self, images: Tensor, *, attention: bool) -> Tokens:
        """What the encoder makes of whole images, without gradient.

        Args:
            images: ``[B, C, H, W]``.
            attention: Also the last block's attention of the class token, where the encoder has it.
        """
        return self.encoder.encode(images, attention=attention and self.encoder.has_class_attention)

    @property
    def provides(self) -> frozenset[str]:
        """What a mask strategy can read of it."""
        return frozenset({"teacher", "attention"} if self.encoder.has_class_attention else {"teacher"})

    def start_from(self, student: nn.Module) -> None:
        """Take the student's first weights; a frozen teacher does not.

        Args:
            student: Has parts of the same names and architectures.
        """

    def follow(self, student: nn.Module, progress: float) -> None:
        """Move towards the student, once per optimiser step; a frozen teacher does not.

        Args:
            student: Has parts of the same names and architectures.
            progress: Share of the training done.
        """


class EMATeacher(Teacher):
    """A teacher that starts as its student and follows it as an exponential moving average.

    Args:
        momentum: Weight of the past at the beginning of the training; it rises to 1 on half a cosine.
        encoder: The student's; copied.
        parts: Further parts of the student; copied.

    Raises:
        UserError: If the momentum is outside [0, 1].
    """

    def __init__(self, momentum: float, encoder: Encoder, **parts: nn.Module) -> None:
        if not 0.0 <= momentum <= 1.0:
            raise UserError(f"teacher_momentum must be in [0, 1], got {momentum}; 0.996 is common")
        super().__init__(copy.deepcopy(encoder), **{n: copy.deepcopy(part) for n, part in parts.items()})
        self.momentum = momentum

    def start_from(self, student: nn.Module) -> None:
        """See :meth:`Teacher.start_from`."""
        self._move(student, momentum=0.0)

    def follow(self, student: nn.Module, progress: float) -> None:
        """See :meth:`Teacher.follow`."""
        self._move(student, momentum=rising_momentum(self.momentum, progress))

    @torch.no_grad()
    def _move(self, student: nn.Module, momentum: float) -> None:
        for name, own in self.named_children():
            other = student.get_submodule(name)
            weights, targets = ([p.detach() for p in part.parameters()] for part in (own, other))
            torch._foreach_lerp_(weights, targets, 1.0 - momentum)
            for buffer, target in zip(own.buffers(), other.buffers(), strict=True):
                buffer.copy_(target)


class FrozenTeacher(Teacher):
    """A teacher that stays as it is, and may have been trained on images normalised in another way.

    Args:
        encoder: Taken as it is.
        mean: Per-channel mean that the student's images are normalised with.
        std: Likewise, their standard deviation.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: Encoder, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(encoder)
        ours, theirs = torch.tensor([mean, std])[..., None, None], torch.tensor([encoder.mean, encoder.std])
        theirs = theirs[..., None, None]
        self.register_buffer("scale", ours[1] / theirs[1], persistent=False)  # [C, 1, 1]
        self.register_buffer("shift", (ours[0] - theirs[0]) / theirs[1], persistent=False)

    def tokens(self, images: Tensor, *, attention: bool) -> Tokens:
        """See :meth:`Teacher.tokens`."""
        return super().tokens(images * self.scale + self.shift, attention=attention)


def rising_momentum(start: float, progress: float) -> float:
    """Half a cosine from ``start`` at progress 0 to 1 at progress 1.

    Source: Grill et al. (2020), "Bootstrap Your Own Latent".
    """
    return 1.0 - (1.0 - start) * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def make_teacher(source: str | Path | None, student: Encoder, *, momentum: float) -> Teacher | None:
    """The teacher a method asks for by name.

    Args:
        source: None; "ema", which follows the student; or an encoder as
            :func:`~dppmask.models.weights.load_encoder` takes it, which stays as it is.
        student: The method's encoder.
        momentum: Of "ema".

    Raises:
        UserError: If the encoder cannot be loaded or sees other patches than the student.
    """
    if source is None:
        return None
    if str(source) == EMA:
        return EMATeacher(momentum, student)
    height, width = student.image_size
    encoder = load_encoder(source, image_size=(height, width))
    if encoder.grid != student.grid or encoder.in_chans != student.in_chans:
        raise UserError(
            f"teacher must see the patches of the student, {student.grid[0]} x {student.grid[1]} in "
            f"{student.in_chans} channels, but {source} sees {encoder.grid[0]} x {encoder.grid[1]} in "
            f"{encoder.in_chans}; use one with patch_size {student.patch_size}"
        )
    return FrozenTeacher(encoder, student.mean, student.std)
