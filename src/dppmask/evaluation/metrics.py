"""Accuracy and average precision, each with its standard error over the evaluated images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dppmask.errors import UserError
from dppmask.rng import fold_in

RESAMPLES = 200  # of every bootstrap
Scored = dict[str, tuple[float, float]]  # metric → value and standard error


def accuracy(predicted: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of equal entries of two int64 ``[n]``, and its binomial standard error."""
    share = (predicted == labels).double().mean().item()
    return share, math.sqrt(share * (1.0 - share) / len(labels))


def average_precision(scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Average precision of each label, without interpolation.

    Precision is averaged over the positives in the order of falling scores. Equal scores enter together, so
    the value does not depend on the order of the images; a constant score gives the share of positives.

    Args:
        scores: ``[n, L]``, larger = more likely.
        targets: bool ``[n, L]``.
        weights: ``[n]``, how often each image counts; None = once.

    Returns:
        float64 ``[L]``; 0 for a label without positives, as scikit-learn, torchmetrics and ASL have it.
    """
    ranking = Ranking.of(scores, targets)
    weights = torch.ones(len(scores)) if weights is None else weights
    return ranking.average_precision(weights).nan_to_num(nan=0.0)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Images in the order of falling scores, label by label, so that many weightings share one sort.

    Attributes:
        order: int64 ``[n, L]``, image at each place.
        positive: bool ``[n, L]``, whether it is a positive.
        tied: int64 ``[n, L]``, the last place with the same score.
    """

    order: Tensor
    positive: Tensor
    tied: Tensor

    @classmethod
    def of(cls, scores: Tensor, targets: Tensor) -> "Ranking":
        """From scores and bool targets ``[n, L]``."""
        ordered, order = scores.sort(dim=0, descending=True, stable=True)
        return cls(order, targets.gather(0, order), _last_of_ties(ordered))

    def average_precision(self, weights: Tensor) -> Tensor:
        """float64 ``[L]`` for images that count ``weights [n]`` times; NaN without positives."""
        weight = weights.double()[self.order]  # [n, L]
        hit = weight * self.positive
        tiny = torch.finfo(torch.float64).tiny  # places of weight 0 before the first image
        precision = (hit.cumsum(0) / weight.cumsum(0).clamp_min(tiny)).gather(0, self.tied)
        return (precision * hit).sum(0) / hit.sum(0)


def mean_average_precision(
    scores: Tensor, targets: Tensor, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The mean of :func:`average_precision` over labels, and its bootstrap standard error over images.

    A label that a resample leaves without a positive takes the mean of the others in that resample: that it
    is missing says nothing about the scores.

    Args:
        scores: ``[n, L]``.
        targets: bool ``[n, L]``, at least one of them True.
        seed: Of the resamples.
        resamples: Draws of n images with replacement.
    """
    ranking = Ranking.of(scores, targets)
    share_scored = targets.any(0).double().mean()  # labels without any positive score 0
    drawn = resampled(len(scores), seed=seed, resamples=resamples)
    drawn_means = torch.stack([ranking.average_precision(times).nanmean() * share_scored for times in drawn])
    return average_precision(scores, targets).mean().item(), drawn_means[~drawn_means.isnan()].std().item()


def resampled(count: int, *, seed: int, resamples: int) -> Iterator[Tensor]:
    """How often each of ``count`` images is drawn, int64 ``[count]``, in one bootstrap sample after another.

    Equal arguments give equal samples, so metrics that are computed apart share theirs.
    """
    generator = fold_in(seed)
    for _ in range(resamples):
        yield torch.randint(count, (count,), generator=generator).bincount(minlength=count)


def classification_metrics(scores: Tensor, labels: Tensor, *, seed: int = 0) -> Scored:
    """The metric of labelled images with its standard error: "top1" of classes, "mAP" of several labels.

    Args:
        scores: ``[n, C]``, larger = more likely.
        labels: int64 ``[n]``, or bool ``[n, C]``.
        seed: Of the resamples of mAP.

    Raises:
        UserError: If no label has a positive.
    """
    if labels.ndim == 1:
        return {"top1": accuracy(scores.argmax(dim=1), labels)}
    if not labels.any():
        raise UserError("mAP needs at least one positive label among the evaluated images, got none")
    return {"mAP": mean_average_precision(scores, labels, seed=seed)}


def labels_without_positives(names: Sequence[str], labels: Tensor) -> list[str]:
    """Says which of the labels, bool ``[n, L]``, score 0 because no validation image has them, if any."""
    missing = [name for name, known in zip(names, labels.any(0).tolist(), strict=True) if not known]
    if not missing:
        return []
    return [f"val: no image has {', '.join(missing)}; labels without positives score 0"]


def values(found: Scored) -> dict[str, float]:
    """The metrics without their standard errors."""
    return {name: value for name, (value, _) in found.items()}


def errors(found: Scored) -> dict[str, float]:
    """The standard errors alone."""
    return {name: error for name, (_, error) in found.items()}


def _last_of_ties(ordered: Tensor) -> Tensor:
    """For each entry of sorted columns ``[n, L]``, the row of the last entry equal to it."""
    count = len(ordered)
    rows = torch.arange(count)[:, None].expand(ordered.shape)
    is_last = torch.ones(ordered.shape, dtype=torch.bool)
    is_last[:-1] = ordered[:-1] != ordered[1:]
    return rows.masked_fill(~is_last, count).flip(0).cummin(0).values.flip(0)
