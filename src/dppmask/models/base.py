"""What a masked-image-modelling method is to the trainer: context, forward with a mask, hooks."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dppmask.masks.base import Mask, MaskContext
from dppmask.views import MultiCrop, Views


@dataclass(frozen=True, eq=False)
class MIMOutput:
    """What a method returns for one batch.

    Attributes:
        loss: The scalar to minimise.
        patch_loss: ``[B, N]``, unreduced.
        prediction: Whatever the method predicts for every patch, or None.
        metrics: Further scalars to log.
    """

    loss: Tensor
    patch_loss: Tensor
    prediction: Tensor | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)


class MaskedImageModel(nn.Module):
    """A method: MAE, iBOT, ….

    Attributes:
        needs_equal_counts: Whether every image of a batch must hide equally many patches.
        provides: What its context offers a strategy; subset of {"images", "tokens", "teacher", "attention"}.
        multi_crop: The crops of each image that it trains on; None = one.
        exported: Name of the part that is kept after pre-training, an encoder.
        encoder: The encoder that is trained.
        needs_attention: Whether the teacher's tokens must bring its attention; whoever knows that no mask
            reads it may say so.
    """

    needs_equal_counts: bool = False
    provides: frozenset[str] = frozenset()
    multi_crop: MultiCrop | None = None
    exported: str = "encoder"
    encoder: nn.Module
    needs_attention: bool = True

    def context(self, batch: Tensor | Views, *, progress: float = 0.0, epoch: int = 0) -> MaskContext:
        """What a mask strategy may read about this batch.

        Args:
            batch: Images ``[B, C, H, W]``, or :class:`Views` of them.
            progress: Share of the training done, from 0 to 1.
            epoch: The current epoch, from 0.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement context")

    def forward(self, context: MaskContext, mask: Mask) -> MIMOutput:
        """Loss of one batch; the rows of ``mask`` follow the (global) images of the context."""
        raise NotImplementedError(f"{type(self).__name__} must implement forward")

    def check_epochs(self, epochs: int) -> None:
        """Refuse a training that is shorter than what the method itself does in its first epochs.

        Args:
            epochs: Length of the training.

        Raises:
            UserError: Naming the method's option.
        """

    def before_training(self) -> None:
        """Called once, before the first step of all, with the first weights in place (teachers copy them)."""

    def before_step(self, epoch: int) -> None:
        """Called between the gradients of an optimiser step and the step (frozen layers)."""

    def after_step(self, progress: float) -> None:
        """Called once per optimiser step, not per micro-batch (EMA teachers)."""


def deferred(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``compute`` for later, with or without gradient as of now, whoever calls it first."""
    with_gradient = torch.is_grad_enabled()

    def run() -> Tensor:
        with torch.set_grad_enabled(with_gradient):
            return compute()

    return run
