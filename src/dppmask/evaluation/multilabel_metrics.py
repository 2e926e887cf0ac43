"""Metrics of images with several labels, each under a name that says which custom and which threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dppmask.errors import UserError
from dppmask.evaluation.metrics import (
    RESAMPLES,
    Scored,
    average_precision,
    mean_average_precision,
    resampled,
)

THRESHOLDS = (0.5, 0.8)  # the usual one, and that of the code of Ridnik et al.


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """How often each label was predicted, true, and both, in any number of samples of the same size.

    Attributes:
        hits: float64 ``[..., L]``, predicted and true.
        predicted: float64 ``[..., L]``.
        positives: float64 ``[..., L]``, true.
        num_images: Images in each sample.
    """

    hits: Tensor
    predicted: Tensor
    positives: Tensor
    num_images: int

    @classmethod
    def of(cls, predicted: Tensor, targets: Tensor, weights: Tensor | None = None) -> "LabelCounts":
        """Count.

        Args:
            predicted: bool ``[n, L]``.
            targets: bool ``[n, L]``.
            weights: ``[..., n]``, how often each image counts, n in all; None = once.
        """
        times = torch.ones(len(targets), dtype=torch.float64) if weights is None else weights.double()
        return cls(
            times @ (predicted & targets).double(),
            times @ predicted.double(),
            times @ targets.double(),
            num_images=len(targets),
        )

    def overall(self) -> "LabelCounts":
        """Entries of all labels counted together: L = 1, and as many images as there were entries."""
        return LabelCounts(
            self.hits.sum(-1, keepdim=True),
            self.predicted.sum(-1, keepdim=True),
            self.positives.sum(-1, keepdim=True),
            num_images=self.num_images * self.hits.shape[-1],
        )

    @property
    def precision(self) -> Tensor:
        """``[..., L]``; 0 for a label that is never predicted."""
        return _share(self.hits, self.predicted)

    @property
    def recall(self) -> Tensor:
        """``[..., L]``; 0 for a label without positives."""
        return _share(self.hits, self.positives)

    @property
    def f1(self) -> Tensor:
        """``[..., L]``, the harmonic mean of precision and recall; 0 without a hit."""
        return _share(2 * self.hits, self.predicted + self.positives)

    @property
    def accuracy(self) -> Tensor:
        """``[..., L]``, the share of images where prediction and truth agree."""
        return 1 - (self.predicted + self.positives - 2 * self.hits) / self.num_images


def counted_metrics(counts: LabelCounts) -> dict[str, Tensor]:
    """Metrics of a thresholded prediction, each ``[...]``.

    ==========================  =======================================================================
    ``accuracy``                share of right entries among n × L
    ``op``, ``or``, ``of1``     precision, recall and F1 of all entries together; micro F1
    ``cp``, ``cr``              mean over labels of precision, of recall
    ``cf1_mean``                mean over labels of F1, macro F1; "CF1" in the code of Ridnik et al. (2021)
    ``cf1_pr``                  harmonic mean of ``cp`` and ``cr``; "CF1" in most other papers
    ``f1_weighted``             mean over labels of F1, weighted by their positives
    ``f1_weighted_swapped``     weighted by how often they are predicted; "weighted" in the code of Shi et
                                al. (2022), *ADIOS*, which swaps prediction and truth; no other F1 changes
    ==========================  =======================================================================

    What is undefined, because nothing is predicted or true, is 0.
    """
    every = counts.overall()
    cp, cr = counts.precision.mean(-1), counts.recall.mean(-1)
    return {
        "accuracy": every.accuracy[..., 0],
        "op": every.precision[..., 0],
        "or": every.recall[..., 0],
        "of1": every.f1[..., 0],
        "cp": cp,
        "cr": cr,
        "cf1_mean": counts.f1.mean(-1),
        "cf1_pr": _share(2 * cp * cr, cp + cr),
        "f1_weighted": _share((counts.f1 * counts.positives).sum(-1), counts.positives.sum(-1)),
        "f1_weighted_swapped": _share((counts.f1 * counts.predicted).sum(-1), counts.predicted.sum(-1)),
    }


def multilabel_values(
    probabilities: Tensor, targets: Tensor, *, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """``mAP``, and each of :func:`counted_metrics` at every threshold, ``of1_0.5`` and so on.

    Args:
        probabilities: ``[n, L]``; a label is predicted where it is greater than the threshold.
        targets: bool ``[n, L]``.
        thresholds: In (0, 1), fixed before anything is looked at.
    """
    found = {"mAP": average_precision(probabilities, targets).mean().item()}
    for threshold in thresholds:
        metrics = counted_metrics(LabelCounts.of(probabilities > threshold, targets))
        found |= {f"{name}_{threshold:g}": value.item() for name, value in metrics.items()}
    return found


def multilabel_metrics(
    probabilities: Tensor,
    targets: Tensor,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scored:
    """The same with standard errors: the spread over bootstrap samples of images, which all metrics share.

    Args:
        probabilities: See :func:`multilabel_values`.
        targets: See :func:`multilabel_values`.
        thresholds: See :func:`multilabel_values`.
        seed: Of the samples.
        resamples: How many.

    Raises:
        UserError: If no label has a positive.
    """
    if not targets.any():
        raise UserError("mAP needs at least one positive label among the evaluated images, got none")
    found = {"mAP": mean_average_precision(probabilities, targets, seed=seed, resamples=resamples)}
    values = multilabel_values(probabilities, targets, thresholds=thresholds)
    times = torch.stack(list(resampled(len(targets), seed=seed, resamples=resamples)))  # [R, n]
    for threshold in thresholds:
        drawn = counted_metrics(LabelCounts.of(probabilities > threshold, targets, times))
        for name, samples in drawn.items():
            key = f"{name}_{threshold:g}"
            found[key] = values[key], samples.std().item()
    return found


def label_rows(
    probabilities: Tensor,
    targets: Tensor,
    names: Sequence[str],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[dict[str, Any]]:
    """One row a label: average precision, positives and their share, precision, recall and F1 by threshold.

    Args:
        probabilities: See :func:`multilabel_values`.
        targets: See :func:`multilabel_values`.
        names: Of the L labels.
        thresholds: See :func:`multilabel_values`.
    """
    columns: dict[str, list[Any]] = {
        "label": list(names),
        "average_precision": average_precision(probabilities, targets).tolist(),
        "positives": targets.sum(0).tolist(),
        "share": targets.double().mean(0).tolist(),
    }
    for threshold in thresholds:
        counts = LabelCounts.of(probabilities > threshold, targets)
        for name in ("precision", "recall", "f1"):
            columns[f"{name}_{threshold:g}"] = getattr(counts, name).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Raise UserError unless there are some, all in (0, 1) and different."""
    if not thresholds or not all(0.0 < threshold < 1.0 for threshold in thresholds):
        raise UserError(f"thresholds must be one or several numbers in (0, 1), got {tuple(thresholds)}")
    if len(set(thresholds)) < len(thresholds):
        raise UserError(f"thresholds must differ from each other, got {tuple(thresholds)}")


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, and 0 where both are 0."""
    return torch.where(whole > 0, part / whole, 0.0)
