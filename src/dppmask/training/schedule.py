"""What changes from step to step, as pure functions of the optimiser step."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long to train and how fast.

    Attributes:
        lr: Peak learning rate.
        weight_decay: Of the parameters that decay, at the beginning.
        warmup_steps: Optimiser steps of linear warm-up.
        total_steps: Optimiser steps of the whole training.
        images_per_step: The effective batch size.
        min_lr: Where the learning rate ends.
        weight_decay_end: Where the weight decay ends, on half a cosine; None = it is constant.
    """

    lr: float
    weight_decay: float
    warmup_steps: int
    total_steps: int
    images_per_step: int
    min_lr: float = 0.0
    weight_decay_end: float | None = None

    def lr_at(self, step: int) -> float:
        """The learning rate of the step after ``step`` finished ones."""
        factor = warmup_cosine(step, warmup_steps=self.warmup_steps, total_steps=self.total_steps)
        floor = self.min_lr if step >= self.warmup_steps else 0.0
        return floor + (self.lr - floor) * factor

    def weight_decay_at(self, step: int) -> float:
        """The weight decay of the step after ``step`` finished ones."""
        if self.weight_decay_end is None:
            return self.weight_decay
        left = warmup_cosine(step, warmup_steps=0, total_steps=self.total_steps)
        return self.weight_decay_end + (self.weight_decay - self.weight_decay_end) * left


def scaled_learning_rate(base_lr: float, effective_batch_size: int) -> float:
    """``base_lr * effective_batch_size / 256``, the linear scaling rule.

    Args:
        base_lr: Learning rate for 256 images a step.
        effective_batch_size: Images per optimiser step: batch x devices x nodes x accumulation.

    Source: Goyal et al. (2017); MAE (He et al., 2021), appendix A.1.
    """
    return base_lr * effective_batch_size / 256


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """The factor on the peak learning rate at ``step``: linear from 0 to 1, then half a cosine from 1 to 0.

    Args:
        step: Finished optimiser steps, from 0. The first step of all therefore has rate 0, as in MAE.
        warmup_steps: Length of the linear part, from 0 to ``total_steps``.
        total_steps: Length of the training, where the factor reaches 0.

    Raises:
        ValueError: If the lengths do not fit.

    Source: Loshchilov and Hutter (2017), without restarts; MAE updates it every iteration.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"warm-up must be between 0 and the whole training, {total_steps} steps, got {warmup_steps}"
        )
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
