"""Images with several labels: a linear layer on frozen features, and every customary metric."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor

from dppmask.errors import UserError
from dppmask.evaluation.asl import asymmetric_potential
from dppmask.evaluation.base import Part
from dppmask.evaluation.baselines import RANDOM_ENCODER, RAW_PIXELS, pixel_votes
from dppmask.evaluation.features import Pooling
from dppmask.evaluation.linear_fast import Loss, PenaltySearch, binary_cross_entropy
from dppmask.evaluation.metrics import Scored
from dppmask.evaluation.multilabel_baselines import CONSTANTS, constant_metrics
from dppmask.evaluation.multilabel_metrics import (
    THRESHOLDS,
    check_thresholds,
    label_rows,
    multilabel_metrics,
)
from dppmask.evaluation.probe import Probe, Tables
from dppmask.evaluation.task import Encoded

LOSSES: dict[str, Loss] = {"bce": binary_cross_entropy, "asl": asymmetric_potential}
OFFERED = (*CONSTANTS, RAW_PIXELS, RANDOM_ENCODER)


class MultiLabel(Probe):
    """A linear layer on frozen features of images with several labels.

    Images are encoded once, and the layer is fitted as :class:`~dppmask.evaluation.linear_fast.LinearFast`
    does: to the end, with a penalty that is chosen by the loss on held-out *training* images. The validation
    part is looked at once, at thresholds that were fixed before. Metrics: "mAP", and at each threshold those
    of :func:`~dppmask.evaluation.multilabel_metrics.counted_metrics`. The table "labels" has a row for each
    label.

    F1 and accuracy depend on how many labels an image has: answers that look at no image can come close to
    learned ones. They are baselines here.

    Args:
        loss: "bce" = binary cross-entropy, as ADIOS takes on CLEVR; "asl" = the asymmetric loss, as is common
            on MS-COCO, which raises all probabilities: read its results at 0.8.
        thresholds: Probabilities above which a label counts as predicted.
        l2: See :class:`~dppmask.evaluation.linear_fast.LinearFast`.
        held_out: See :class:`~dppmask.evaluation.linear_fast.LinearFast`.
        max_iterations: See :class:`~dppmask.evaluation.linear_fast.LinearFast`.
        pooling: See :class:`~dppmask.evaluation.features.View`.
        blocks: See :class:`~dppmask.evaluation.features.View`.
        baselines: Which of "chance" (every label is as likely as it is frequent), "all_negative",
            "all_positive", "raw_pixels" (a k-NN), "random_encoder" to report beside.

    Raises:
        UserError: If an argument is outside its range.

    Source: Ridnik et al. (2021), *Asymmetric Loss For Multi-Label Classification*; Shi et al. (2022),
    *Adversarial Masking for Self-Supervised Learning*, on CLEVR.
    """

    scenes = "multi"

    offered = OFFERED

    def __init__(
        self,
        loss: Literal["bce", "asl"] = "bce",
        thresholds: Sequence[float] = THRESHOLDS,
        l2: Sequence[float] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5),
        held_out: float = 0.2,
        max_iterations: int = 200,
        pooling: Pooling = "cls",
        blocks: int = 1,
        baselines: Sequence[str] = OFFERED,
    ) -> None:
        super().__init__(pooling=pooling, blocks=blocks, baselines=baselines)
        if loss not in LOSSES:
            raise UserError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        check_thresholds(thresholds)
        self.search = PenaltySearch(tuple(l2), held_out, max_iterations)
        self.loss = loss
        self.thresholds = tuple(thresholds)
        self.l2 = tuple(l2)
        self.held_out = held_out
        self.max_iterations = max_iterations

    def class_names(self, part: Part) -> list[str]:
        """See :meth:`~dppmask.evaluation.probe.Probe.class_names`."""
        return part.require_several_labels(self.name, instead="LinearFast")

    def assess(self, encoded: Encoded, *, seed: int) -> tuple[Scored, Tables]:
        """Fit and test.

        The seed decides what is held out, the random encoder, and the resamples behind the errors.

        Raises:
            UserError: If the images have one class each.
        """
        if encoded.train_labels.ndim == 1:
            raise UserError(
                f"{self.name} needs images with several labels; use LinearFast for one class each"
            )
        device, task = encoded.task.compute.device, encoded.task
        features, labels = encoded.train.values.to(device), encoded.train_labels.to(device)
        head = self.search.fit(features, labels.to(features.dtype), LOSSES[self.loss], seed=seed)
        found = head.scores(encoded.val.values.to(device)).sigmoid().cpu()
        rows = label_rows(found, encoded.val_labels, task.class_names, thresholds=self.thresholds)
        return self._metrics(found, encoded, seed=seed), {"penalties": head.penalties, "labels": rows}

    def assess_pixels(self, encoded: Encoded, *, seed: int) -> Scored:
        """The same metrics; a label is as probable as its weighted share of the neighbours."""
        return self._metrics(pixel_votes(encoded), encoded, seed=seed)

    def beside(
        self, encoded: Encoded, found: Scored, *, seed: int
    ) -> dict[str, Callable[[], dict[str, float]]]:
        """See :meth:`~dppmask.evaluation.probe.Probe.beside`."""
        labels, thresholds = encoded.val_labels, self.thresholds
        constants = {
            name: partial(constant_metrics, name, labels, thresholds=thresholds) for name in CONSTANTS
        }
        return super().beside(encoded, found, seed=seed) | constants

    def _metrics(self, probabilities: Tensor, encoded: Encoded, *, seed: int) -> Scored:
        return multilabel_metrics(probabilities, encoded.val_labels, thresholds=self.thresholds, seed=seed)
