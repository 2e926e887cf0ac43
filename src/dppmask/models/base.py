"""What a masked-image-modelling method is to the trainer: context, forward with a mask, hook after a step."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from dppmask.masks.base import Mask, MaskContext


@dataclass(frozen=True, eq=False)
class Views:
    """Several crops of each image, view-major: row ``g * B + b`` is crop g of image b.

    Attributes:
        global_crops: ``[G * B, C, H, W]``.
        local_crops: ``[M * B, C, h, w]`` or None.
        num_global: G.
        num_local: M.
    """

    global_crops: Tensor
    local_crops: Tensor | None = None
    num_global: int = 2
    num_local: int = 0


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
        encoder: The part that is kept after pre-training.
    """

    needs_equal_counts: bool = False
    provides: frozenset[str] = frozenset()
    encoder: nn.Module

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

    def after_step(self, progress: float) -> None:
        """Called once per optimiser step, not per micro-batch (EMA teachers)."""
