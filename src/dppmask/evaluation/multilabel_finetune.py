"""Images with several labels: the whole encoder learns to name them all."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from dppmask import specs
from dppmask.data.augment import WholeImageTransform
from dppmask.data.base import ImageSource
from dppmask.errors import UserError
from dppmask.evaluation.asl import asymmetric_loss
from dppmask.evaluation.base import Part, Protocol, Result, Subject
from dppmask.evaluation.baselines import RANDOM_ENCODER, check_baselines, random_encoder
from dppmask.evaluation.classifier import Classifier, new_classifier
from dppmask.evaluation.features import frozen_features
from dppmask.evaluation.linear_fast import Loss, binary_cross_entropy
from dppmask.evaluation.metrics import (
    Scored,
    classification_metrics,
    errors,
    labels_without_positives,
    values,
)
from dppmask.evaluation.multilabel_baselines import CONSTANTS, constant_metrics
from dppmask.evaluation.multilabel_metrics import (
    THRESHOLDS,
    check_thresholds,
    label_rows,
    multilabel_metrics,
)
from dppmask.evaluation.supervised import FineTuning
from dppmask.evaluation.supervised.folders import identity_of, kept_notes, working_folder
from dppmask.models.encoder import Encoder

if TYPE_CHECKING:
    from dppmask.evaluation.supervised import FineTuned

OFFERED = (*CONSTANTS, RANDOM_ENCODER)
REMEMBERED = 0.02  # share of first weights in an average that is worth a note
OPTIMISTIC = "mAP_best is the best epoch on val, chosen on val itself: optimistic, but what ASL reports"


class MultiLabelFinetune(Protocol):
    """Supervised fine-tuning of the whole encoder on images with several labels, after the recipe of ASL.

    Metrics are those of :class:`~dppmask.evaluation.multilabel.MultiLabel`, after the last epoch, of averaged
    weights where an average is kept, at thresholds that were fixed before; and "mAP_best", of the best epoch
    on the validation part, which is what ASL reports and optimistic.

    Images are squeezed into the encoder's input, never cropped. What differs from the code of ASL: weight
    decay is AdamW's, where that code's Adam adds it to the gradient; the learning rate rises for a fifth of
    the epochs and falls to 0 on a cosine, where that code lays one cycle over 80 epochs and stops after 41;
    rectangles of noise are erased, where it takes those of one colour (Cutout); and images may be flipped.

    Folders are those of :class:`~dppmask.evaluation.finetune.Finetune`: an interrupted evaluation goes on.

    Args:
        loss: "asl" = the asymmetric loss, "bce" = binary cross-entropy per label.
        thresholds: Probabilities above which a label counts as predicted; ASL: 0.8.
        epochs: See :class:`~dppmask.evaluation.supervised.settings.FineTuning`, also for the next eight.
        warmup_epochs: With a rising learning rate.
        batch_size: Images per update.
        micro_batch: Images that pass together.
        base_lr: Learning rate for 256 images per update; ASL: 1e-4 for its 128.
        min_lr: Where it ends.
        layer_decay: Factor of the learning rate from a layer to the one before.
        weight_decay: Of matrices.
        ema: Decay of averaged weights, or None; ASL: 0.9997, which takes over ten thousand updates to forget
            the first weights.
        drop_path: Probability that the last block is left out; it falls to 0 at the first.
        rand_augment: In timm's notation, or None.
        random_erasing: Probability that a rectangle is filled with noise.
        pooling: "mean" of the patch tokens, or "cls".
        baselines: Which of "chance" (every label is as likely as it is frequent), "all_negative",
            "all_positive", "random_encoder" to report beside; the last one trains a second time.
        out: Folder to work in; by default one in the run, named after a hash of all that matters.

    Raises:
        UserError: If an argument is outside its range.

    Source: Ridnik et al. (2021), *Asymmetric Loss For Multi-Label Classification*, and its code.
    """

    scenes = "multi"

    def __init__(
        self,
        loss: Literal["asl", "bce"] = "asl",
        thresholds: Sequence[float] = THRESHOLDS,
        epochs: int = 40,
        warmup_epochs: float = 8,
        batch_size: int = 128,
        micro_batch: int = 128,
        base_lr: float = 2e-4,
        min_lr: float = 0.0,
        layer_decay: float = 1.0,
        weight_decay: float = 1e-4,
        ema: float | None = None,
        drop_path: float = 0.0,
        rand_augment: str | None = "rand-m9-mstd0.5-inc1",
        random_erasing: float = 0.25,
        pooling: Literal["mean", "cls"] = "mean",
        baselines: Sequence[str] = CONSTANTS,
        out: str | None = None,
    ) -> None:
        self.settings = FineTuning(
            epochs=epochs,
            warmup_epochs=warmup_epochs,
            batch_size=batch_size,
            micro_batch=micro_batch,
            base_lr=base_lr,
            min_lr=min_lr,
            layer_decay=layer_decay,
            weight_decay=weight_decay,
            ema=ema,
        )
        self.loss = loss
        self.thresholds = tuple(thresholds)
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.batch_size = batch_size
        self.micro_batch = micro_batch
        self.base_lr = base_lr
        self.min_lr = min_lr
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.ema = ema
        self.drop_path = drop_path
        self.rand_augment = rand_augment
        self.random_erasing = random_erasing
        self.pooling = pooling
        self.baselines = tuple(baselines)
        self.out = out
        self._check()

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`.

        The seed decides the head's first weights, order and augmentation of the images, dropped paths, the
        random encoder, and the resamples behind the errors.
        """
        encoder = subject.require_encoder(self.name)
        train, val = Part.open(data, "train"), Part.open(data, "val")
        names = train.require_several_labels(self.name, instead="Finetune")
        with working_folder(self, subject, data, seed=seed) as folder:
            tune = partial(self._tune, names=names, train=train, val=val, subject=subject, seed=seed)
            tuned = tune(encoder, folder)
            probabilities, labels = self._predict(tuned.classifier, val, subject)
            found = self._metrics(tuned, probabilities, labels, seed=seed)
            beside = {name: self._constant(name, labels) for name in CONSTANTS}
            if RANDOM_ENCODER in self.baselines:
                other = tune(random_encoder(encoder, seed=seed), folder / RANDOM_ENCODER)
                scratch, _ = self._predict(other.classifier, val, subject)
                beside[RANDOM_ENCODER] = values(self._metrics(other, scratch, labels, seed=seed))
        rows = label_rows(probabilities, labels, names, thresholds=self.thresholds)
        return Result(
            self.name,
            values(found),
            standard_errors=errors(found),
            baselines={name: beside[name] for name in self.baselines},
            tables={"epochs": [dict(row) for row in tuned.rows], "labels": rows},
            notes=[
                OPTIMISTIC,
                *tuned.notes,
                *labels_without_positives(names, labels),
                *self._average_notes(len(train.images)),
                *kept_notes(self, subject),
            ],
        )

    def _tune(
        self,
        encoder: Encoder,
        folder: Path,
        *,
        names: list[str],
        train: Part,
        val: Part,
        subject: Subject,
        seed: int,
    ) -> "FineTuned":
        """Fine-tune one encoder in a folder of its own."""
        from dppmask.evaluation.supervised import fine_tune  # see there

        classifier = new_classifier(encoder, names, pooling=self.pooling, drop_path=self.drop_path, seed=seed)
        height, width = encoder.image_size
        transform = WholeImageTransform(
            (height, width),
            rand_augment=self.rand_augment,
            erasing=self.random_erasing,
            mean=encoder.mean,
            std=encoder.std,
        )
        return fine_tune(
            classifier,
            train.images,
            val.images,
            self.settings,
            loss=LOSSES[self.loss],
            score=classification_metrics,
            folder=folder,
            transform=transform,
            seed=seed,
            compute=subject.compute,
            identity={"protocol": identity_of(self), "data": specs.describe(train.data)},
        )

    def _predict(self, classifier: Classifier, val: Part, subject: Subject) -> tuple[Tensor, Tensor]:
        """Probabilities and labels of the validation images, ``[n, L]``."""
        features = frozen_features(
            classifier.encoder, val, classifier.view, subject.compute, title="fine-tuned features"
        )
        logits = classifier.head(features.values).detach()
        return logits.sigmoid(), features.require_labels()

    def _metrics(self, tuned: "FineTuned", probabilities: Tensor, labels: Tensor, *, seed: int) -> Scored:
        found = multilabel_metrics(probabilities, labels, thresholds=self.thresholds, seed=seed)
        return found | {"mAP_best": tuned.best["mAP"]}

    def _constant(self, name: str, labels: Tensor) -> dict[str, float]:
        found = constant_metrics(name, labels, thresholds=self.thresholds)
        return found | {"mAP_best": found["mAP"]}

    def _average_notes(self, num_images: int) -> list[str]:
        """Says so where the averaged weights have not forgotten how they began."""
        left = 0.0 if self.ema is None else self.ema ** self.settings.schedule(num_images).total_steps
        if left < REMEMBERED:
            return []
        return [
            f"ema: {left:.0%} of the averaged weights are still the first ones; train longer, or lower ema"
        ]

    def _check(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        check_thresholds(self.thresholds)
        if not 0.0 <= self.drop_path < 1.0:
            raise UserError(f"drop_path must be in [0, 1), got {self.drop_path}; MAE fine-tunes with 0.1")
        if self.pooling not in ("mean", "cls"):
            raise UserError(f"pooling must be 'mean' or 'cls', got {self.pooling!r}")
        WholeImageTransform(rand_augment=self.rand_augment, erasing=self.random_erasing)
        check_baselines(self.baselines, OFFERED)


def mean_asymmetric_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The asymmetric loss, mean over images: Adam takes no notice of the scale, a log does."""
    return asymmetric_loss(logits, targets) / len(logits)


LOSSES: dict[str, Loss] = {"asl": mean_asymmetric_loss, "bce": binary_cross_entropy}
