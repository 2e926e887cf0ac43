"""What a classifier should say: targets from labels, mixed or smoothed, and the loss of classes."""

from functools import partial
from typing import TYPE_CHECKING

import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor

from dppmask.evaluation.baselines import one_hot

if TYPE_CHECKING:  # Lightning takes seconds to import
    from dppmask.training.supervised import Mix


def plain_targets(images: Tensor, labels: Tensor, *, num_classes: int) -> tuple[Tensor, Tensor]:
    """Images as they are, and labels as ones and zeros, float32 ``[B, C]``."""
    return images, one_hot(labels, num_classes)


def mixing(num_classes: int, mixup: float, cutmix: float, label_smoothing: float) -> "Mix":
    """Mixup and CutMix of whole micro-batches, by timm, with smoothed targets; or these alone."""
    if not (mixup or cutmix):
        return partial(smoothed_targets, num_classes=num_classes, label_smoothing=label_smoothing)
    return Mixup(
        mixup_alpha=mixup,
        cutmix_alpha=cutmix,
        prob=1.0,
        switch_prob=0.5,
        mode="batch",
        label_smoothing=label_smoothing,
        num_classes=num_classes,
    )


def smoothed_targets(
    images: Tensor, labels: Tensor, *, num_classes: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Images as they are; of each target a share is spread over all classes, float32 ``[B, C]``."""
    return images, one_hot(labels, num_classes) * (1.0 - label_smoothing) + label_smoothing / num_classes


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over images of the cross-entropy with target distributions ``[B, C]``."""
    return F.cross_entropy(logits, targets)
