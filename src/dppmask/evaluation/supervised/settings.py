"""The numbers of a fine-tuning, checked, and the schedule they make."""

import math
from dataclasses import dataclass

from dppmask.errors import UserError
from dppmask.training.schedule import Schedule, scaled_learning_rate


@dataclass(frozen=True)
class FineTuning:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the training part.
        warmup_epochs: Of these, with a learning rate that rises from 0.
        batch_size: Images per update.
        micro_batch: Images that pass, and are mixed, together; a divisor of ``batch_size``. Devices divide
            the micro-batches of an update among themselves, so their number changes no result.
        base_lr: Learning rate for 256 images per update.
        min_lr: Where it ends, not scaled.
        layer_decay: Factor from the learning rate of a layer to that of the layer before.
        weight_decay: Of matrices.
        betas: Momenta of AdamW.
        clip_grad: Largest joint norm of all gradients; None = any.
        ema: Decay of an average of the weights, which is then what is tested and kept; None = no average.

    Raises:
        UserError: If an attribute is outside its range.
    """

    epochs: int
    warmup_epochs: float
    batch_size: int
    micro_batch: int
    base_lr: float
    min_lr: float = 0.0
    layer_decay: float = 1.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_grad: float | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.micro_batch:
            raise UserError(f"micro_batch must divide batch_size {self.batch_size}, got {self.micro_batch}")
        if not 0.0 <= self.warmup_epochs <= self.epochs:
            raise UserError(
                f"warmup_epochs must be in [0, epochs], got {self.warmup_epochs} of {self.epochs}"
            )
        if not 0.0 < self.base_lr < math.inf:
            raise UserError(f"base_lr must be positive and finite, got {self.base_lr}")
        for name in ("min_lr", "weight_decay"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if not 0.0 < self.layer_decay <= 1.0:
            raise UserError(f"layer_decay must be in (0, 1], got {self.layer_decay}; MAE uses 0.65 for ViT-B")
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise UserError(f"betas must be two numbers in [0, 1), got {self.betas}; MAE uses (0.9, 0.999)")
        if self.clip_grad is not None and self.clip_grad <= 0.0:
            raise UserError(f"clip_grad must be above 0, got {self.clip_grad}; leave it out not to clip")
        if self.ema is not None and not 0.0 < self.ema < 1.0:
            raise UserError(f"ema must be in (0, 1), got {self.ema}; 0.9999 is common")

    def schedule(self, num_images: int) -> Schedule:
        """Rates and length for this many training images.

        Raises:
            UserError: If they do not fill one update.
        """
        if self.batch_size > num_images:
            raise UserError(
                f"batch_size must be at most the number of training images, {num_images}, "
                f"got {self.batch_size}"
            )
        steps_per_epoch = num_images // self.batch_size
        return Schedule(
            lr=scaled_learning_rate(self.base_lr, self.batch_size),
            weight_decay=self.weight_decay,
            warmup_steps=round(self.warmup_epochs * steps_per_epoch),
            total_steps=self.epochs * steps_per_epoch,
            images_per_step=self.batch_size,
            min_lr=self.min_lr,
        )
