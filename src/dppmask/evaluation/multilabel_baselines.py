"""Answers to images with several labels that look at no image; F1 and accuracy can come close to them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dppmask.evaluation.baselines import CHANCE
from dppmask.evaluation.multilabel_metrics import multilabel_values

ALL_NEGATIVE, ALL_POSITIVE = "all_negative", "all_positive"
CONSTANTS = (CHANCE, ALL_NEGATIVE, ALL_POSITIVE)


def constant_metrics(name: str, labels: Tensor, *, thresholds: Sequence[float]) -> dict[str, float]:
    """The metrics of the same probabilities for every image.

    Args:
        name: "chance" = every label is as likely as it is frequent among these images; "all_negative" = none
            is; "all_positive" = every label is certain.
        labels: bool ``[n, L]``.
        thresholds: Above which a label counts as predicted.
    """
    frequencies = labels.double().mean(0)
    probabilities = {
        CHANCE: frequencies,
        ALL_NEGATIVE: torch.zeros_like(frequencies),
        ALL_POSITIVE: torch.ones_like(frequencies),
    }[name]
    return multilabel_values(probabilities.expand(labels.shape), labels, thresholds=thresholds)
