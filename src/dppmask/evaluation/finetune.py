"""Fine-tuning: the whole encoder learns to name classes, as MAE trains it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dppmask import specs
from dppmask.data.augment import FineTuneTransform
from dppmask.data.base import ImageSource
from dppmask.errors import UserError
from dppmask.evaluation.base import Part, Protocol, Result, Subject
from dppmask.evaluation.baselines import CHANCE, RANDOM_ENCODER, random_encoder
from dppmask.evaluation.classifier import new_classifier
from dppmask.evaluation.metrics import classification_metrics, errors, values
from dppmask.evaluation.supervised import FineTuning
from dppmask.evaluation.supervised.folders import identity_of, kept_notes, working_folder
from dppmask.evaluation.supervised.targets import mixing, soft_cross_entropy
from dppmask.models.encoder import Encoder

if TYPE_CHECKING:
    from dppmask.evaluation.supervised import FineTuned

OPTIMISTIC = "top1_best is the best epoch on val, chosen on val itself: optimistic, but what MAE reports"


class Finetune(Protocol):
    """Supervised fine-tuning of the whole encoder with a linear head, by MAE's recipe.

    The learning rate falls from layer to layer towards the image; position tables are trained. With pooling
    "mean" the encoder's final norm makes way for a fresh one behind the mean of the patch tokens, as in MAE.

    Metrics: "top1" after the last epoch, and "top1_best", the best epoch on the validation part, which is
    what MAE reports and optimistic.

    Everything is written to a folder; an interrupted evaluation goes on there, and a finished one is read
    instead of trained again.

    Args:
        epochs: See :class:`~dppmask.evaluation.supervised.settings.FineTuning`, also for the next nine.
        warmup_epochs: With a rising learning rate.
        batch_size: Images per update.
        micro_batch: Images that pass, and are mixed, together; even where images are mixed.
        base_lr: Learning rate for 256 images per update.
        min_lr: Where it ends.
        layer_decay: Factor of the learning rate from a layer to the one before.
        weight_decay: Of matrices.
        ema: Decay of averaged weights, or None.
        drop_path: Probability that the last block is left out; it falls to 0 at the first.
        mixup: α of the Beta law of mixup's shares; 0 = none.
        cutmix: α of the Beta law of CutMix's areas; 0 = none. Where both are given each has half of the
            micro-batches.
        label_smoothing: Share of a target that is spread over all classes.
        rand_augment: In timm's notation, or None.
        random_erasing: Probability that a rectangle is filled with noise.
        min_scale: Smallest area of a random crop, as a share of the image.
        pooling: "mean" of the patch tokens, or "cls".
        baselines: Which of "chance" and "random_encoder" to report beside; the latter trains a second time.
        out: Folder to work in; by default one in the run, named after a hash of all that matters.

    Raises:
        UserError: If an argument is outside its range.

    Source: He et al. (2022), *Masked Autoencoders Are Scalable Vision Learners*, appendix A.1.
    """

    def __init__(
        self,
        epochs: int = 100,
        warmup_epochs: float = 5,
        batch_size: int = 1024,
        micro_batch: int = 128,
        base_lr: float = 5e-4,
        min_lr: float = 1e-6,
        layer_decay: float = 0.65,
        weight_decay: float = 0.05,
        ema: float | None = None,
        drop_path: float = 0.1,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        label_smoothing: float = 0.1,
        rand_augment: str | None = "rand-m9-mstd0.5-inc1",
        random_erasing: float = 0.25,
        min_scale: float = 0.08,
        pooling: Literal["mean", "cls"] = "mean",
        baselines: Sequence[str] = (CHANCE,),
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
        self.mixup = mixup
        self.cutmix = cutmix
        self.label_smoothing = label_smoothing
        self.rand_augment = rand_augment
        self.random_erasing = random_erasing
        self.min_scale = min_scale
        self.pooling = pooling
        self.baselines = tuple(baselines)
        self.out = out
        self._check()

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`.

        The seed decides the head's first weights, order, augmentation and mixing of the images, dropped
        paths, and the random encoder.
        """
        encoder = subject.require_encoder(self.name)
        train, val = Part.open(data, "train"), Part.open(data, "val")
        names = train.require_single_label(self.name, instead="LinearFast")
        with working_folder(self, subject, data, seed=seed) as folder:
            train_on = partial(self._train, names=names, train=train, val=val, subject=subject, seed=seed)
            found = train_on(encoder, folder)
            beside = {CHANCE: best_and_last(found.chance, found.chance)}
            if RANDOM_ENCODER in self.baselines:
                other = train_on(random_encoder(encoder, seed=seed), folder / RANDOM_ENCODER)
                beside[RANDOM_ENCODER] = best_and_last(values(other.last), values(other.best))
        return Result(
            self.name,
            best_and_last(values(found.last), values(found.best)),
            standard_errors=best_and_last(errors(found.last), errors(found.best)),
            baselines={name: beside[name] for name in self.baselines},
            tables={"epochs": [dict(row) for row in found.rows]},
            notes=[OPTIMISTIC, *found.notes, *kept_notes(self, subject)],
        )

    def _train(
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
        from dppmask.evaluation.supervised import fine_tune, fine_tune_transform_of  # see there

        classifier = new_classifier(encoder, names, pooling=self.pooling, drop_path=self.drop_path, seed=seed)
        transform = fine_tune_transform_of(
            encoder,
            rand_augment=self.rand_augment,
            erasing=self.random_erasing,
            scale=(self.min_scale, 1.0),
        )
        return fine_tune(
            classifier,
            train.images,
            val.images,
            self.settings,
            loss=soft_cross_entropy,
            score=classification_metrics,
            folder=folder,
            mix=mixing(len(names), self.mixup, self.cutmix, self.label_smoothing),
            transform=transform,
            seed=seed,
            compute=subject.compute,
            identity={"protocol": identity_of(self), "data": specs.describe(train.data)},
        )

    def _check(self) -> None:
        for name in ("drop_path", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"{name} must be in [0, 1), got {getattr(self, name)}; MAE uses 0.1")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0.0:
                raise UserError(f"{name} must be at least 0, got {getattr(self, name)}; 0 switches it off")
        if (self.mixup or self.cutmix) and self.micro_batch % 2:
            raise UserError(f"micro_batch must be even where images are mixed, got {self.micro_batch}")
        if self.pooling not in ("mean", "cls"):
            raise UserError(f"pooling must be 'mean' or 'cls', got {self.pooling!r}")
        if not 0.0 < self.min_scale <= 1.0:
            raise UserError(f"min_scale must be in (0, 1], got {self.min_scale}; MAE uses 0.08")
        FineTuneTransform(rand_augment=self.rand_augment, erasing=self.random_erasing)
        for name in self.baselines:
            if name not in (CHANCE, RANDOM_ENCODER):
                raise UserError(f"baselines of Finetune are {CHANCE} and {RANDOM_ENCODER}, got {name!r}")


def best_and_last(last: dict[str, float], best: dict[str, float]) -> dict[str, float]:
    """Both under names of their own."""
    return {**last, **{f"{name}_best": value for name, value in best.items()}}
