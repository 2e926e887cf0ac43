"""The learning rate as a pure function of the optimiser step."""

import math


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
