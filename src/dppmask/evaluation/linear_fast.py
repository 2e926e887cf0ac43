"""A linear classifier on cached features: minutes instead of hours, and no learning rate to tune."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dppmask.errors import UserError
from dppmask.evaluation.baselines import BASELINES, one_hot
from dppmask.evaluation.features import Pooling
from dppmask.evaluation.metrics import Scored, average_precision, classification_metrics
from dppmask.evaluation.probe import Probe, Tables
from dppmask.evaluation.task import Encoded
from dppmask.rng import fold_in

EPSILON = 1e-6  # added to the variance of a feature, as in MAE's probe


class LinearFast(Probe):
    """Logistic regression on the frozen features of un-augmented images.

    Features are standardised with the statistics of the training part (a batch normalisation without affine
    part over the whole set). Classes take a softmax cross-entropy, multi-label images one binary
    cross-entropy per label. The penalty is chosen by the loss on a held-out share of the *training* part,
    then the head is fitted to all of it; the validation part is looked at once. Metric: "top1", or "mAP" for
    multi-label images.

    Args:
        l2: Penalties to choose from; the head minimises ``loss + l2 / 2 · ‖W‖²``.
        held_out: Share of the training images the penalty is chosen on.
        max_iterations: Of L-BFGS, per fit.
        pooling: See :class:`~dppmask.evaluation.features.View`.
        blocks: See :class:`~dppmask.evaluation.features.View`.
        baselines: Which of "chance", "raw_pixels" (a k-NN), "random_encoder" to report beside.

    Raises:
        UserError: If an argument is outside its range.
    """

    several_labels = True

    def __init__(
        self,
        l2: Sequence[float] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
        held_out: float = 0.2,
        max_iterations: int = 200,
        pooling: Pooling = "cls",
        blocks: int = 1,
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        super().__init__(pooling=pooling, blocks=blocks, baselines=baselines)
        self.search = PenaltySearch(tuple(l2), held_out, max_iterations)
        self.l2 = tuple(l2)
        self.held_out = held_out
        self.max_iterations = max_iterations

    def assess(self, encoded: Encoded, *, seed: int) -> tuple[Scored, Tables]:
        """Fit and test.

        The seed decides what is held out, the random encoder, and the resamples behind the error of mAP.
        """
        device, task = encoded.task.compute.device, encoded.task
        features, labels = encoded.train.values.to(device), encoded.train_labels.to(device)
        head = self.probe(features, labels, task.num_classes, seed=seed)
        scores = head.scores(encoded.val.values.to(device)).cpu()
        tables = {"penalties": head.penalties} | label_table(scores, encoded.val_labels, task.class_names)
        return classification_metrics(scores, encoded.val_labels, seed=seed), tables

    def probe(self, features: Tensor, labels: Tensor, num_classes: int, *, seed: int) -> "FittedHead":
        """Choose the penalty on a held-out share and fit the head to everything.

        Args:
            features: float ``[n, D]``.
            labels: int64 ``[n]`` or bool ``[n, L]``.
            num_classes: C or L.
            seed: Of the choice of what is held out.

        Raises:
            UserError: If there are fewer than two images.
        """
        targets = one_hot(labels, num_classes).to(features.dtype)
        loss = cross_entropy if labels.ndim == 1 else binary_cross_entropy
        return self.search.fit(features, targets, loss, seed=seed)


Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean softmax cross-entropy of scores and one-hot targets ``[n, C]``."""
    return F.cross_entropy(scores, targets)


def binary_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, summed over labels, mean over images: one logistic regression per label."""
    return F.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(dim=1).mean()


@dataclass(frozen=True)
class PenaltySearch:
    """Which penalties are tried on a head, and on what.

    Attributes:
        l2: Penalties to choose from; the head minimises ``loss + l2 / 2 · ‖W‖²``.
        held_out: Share of the images the penalty is chosen on.
        max_iterations: Of L-BFGS, per fit.

    Raises:
        UserError: If an attribute is outside its range.
    """

    l2: tuple[float, ...]
    held_out: float
    max_iterations: int

    def __post_init__(self) -> None:
        if not self.l2 or min(self.l2) <= 0.0:
            raise UserError(f"l2 must be one or several positive numbers, got {self.l2}")
        if not 0.0 < self.held_out < 1.0:
            raise UserError(
                f"held_out must be in (0, 1), got {self.held_out}; 0.2 keeps a fifth of the training images"
            )
        if self.max_iterations < 1:
            raise UserError(f"max_iterations must be at least 1, got {self.max_iterations}")

    def fit(self, features: Tensor, targets: Tensor, loss: Loss, *, seed: int) -> "FittedHead":
        """Choose the penalty by the loss on the held-out share, then fit the head to everything.

        Args:
            features: float ``[n, D]``.
            targets: One-hot or multi-hot ``[n, C]``.
            loss: Mean over images.
            seed: Of the choice of what is held out.

        Raises:
            UserError: If there are fewer than two images.
        """
        if len(features) < 2:
            raise UserError(f"a linear probe needs at least 2 training images, got {len(features)}")
        order = torch.randperm(len(features), generator=fold_in(seed))
        num_held_out = min(max(round(self.held_out * len(features)), 1), len(features) - 1)
        held_out, rest = order[:num_held_out], order[num_held_out:]
        penalties = []
        head = FittedHead.zero(features[rest], targets.shape[1])
        for l2 in sorted(self.l2, reverse=True):  # each fit starts where the stronger penalty ended
            head = head.fit(features[rest], targets[rest], loss, l2=l2, max_iterations=self.max_iterations)
            value = loss(head.scores(features[held_out]), targets[held_out]).item()
            penalties.append({"l2": l2, "held_out_loss": value})
        best = min(penalties, key=lambda row: row["held_out_loss"])["l2"]
        head = FittedHead.zero(features, targets.shape[1])
        head = head.fit(features, targets, loss, l2=best, max_iterations=self.max_iterations)
        return FittedHead(head.mean, head.scale, head.weight, head.bias, penalties)


@dataclass(frozen=True, eq=False)
class FittedHead:
    """Standardisation and a linear layer.

    Attributes:
        mean: ``[D]``.
        scale: ``[D]``, standard deviations.
        weight: ``[C, D]``.
        bias: ``[C]``.
        penalties: The held-out loss of every penalty tried.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    penalties: list[dict[str, float]]

    @classmethod
    def zero(cls, features: Tensor, num_classes: int) -> "FittedHead":
        """A head that knows the statistics of the features ``[n, D]`` and nothing else."""
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        weight = features.new_zeros(num_classes, features.shape[1])
        return cls(mean, (variance + EPSILON).sqrt(), weight, features.new_zeros(num_classes), [])

    def scores(self, features: Tensor) -> Tensor:
        """``[n, D]`` → ``[n, C]``."""
        return F.linear((features - self.mean) / self.scale, self.weight, self.bias)

    def module(self) -> nn.Sequential:
        """The same as a network: batch normalisation with these statistics, frozen, and a linear layer."""
        num_classes, width = self.weight.shape
        norm = nn.BatchNorm1d(width, affine=False, eps=EPSILON)
        norm.load_state_dict(
            {
                "running_mean": self.mean,
                "running_var": (self.scale.square() - EPSILON).clamp(min=0.0),
                "num_batches_tracked": torch.tensor(0),
            }
        )
        linear = nn.Linear(width, num_classes)
        linear.load_state_dict({"weight": self.weight, "bias": self.bias})
        return nn.Sequential(norm, linear).to(self.weight.device).eval()

    def fit(
        self, features: Tensor, targets: Tensor, loss: Loss, *, l2: float, max_iterations: int
    ) -> "FittedHead":
        """Minimise ``loss + l2 / 2 · ‖W‖²`` by L-BFGS, from here.

        Args:
            features: ``[n, D]``.
            targets: One-hot or multi-hot ``[n, C]``.
            loss: Convex in the scores.
            l2: Penalty; the bias is free.
            max_iterations: Of L-BFGS.
        """
        standard = (features - self.mean) / self.scale
        weight, bias = self.weight.clone().requires_grad_(), self.bias.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=max_iterations, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            objective = loss(F.linear(standard, weight, bias), targets) + 0.5 * l2 * weight.square().sum()
            objective.backward()
            return objective

        optimizer.step(closure)
        return FittedHead(self.mean, self.scale, weight.detach(), bias.detach(), self.penalties)


def label_table(scores: Tensor, labels: Tensor, names: Sequence[str]) -> Tables:
    """Average precision label by label; 0 for a label without positives."""
    if labels.ndim == 1:
        return {}
    precision = average_precision(scores, labels).tolist()
    counts = labels.sum(0).tolist()
    rows = [
        {"label": name, "average_precision": value, "positives": count}
        for name, value, count in zip(names, precision, counts, strict=True)
    ]
    return {"labels": rows}
