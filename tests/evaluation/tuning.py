"""A fine-tuning small enough to be done dozens of times: 2 epochs of 3 updates, each of 2 micro-batches."""

from pathlib import Path
from typing import Any

from coloured_images import Coloured, tiny_encoder

from dppmask.evaluation.classifier import Classifier, new_classifier
from dppmask.evaluation.metrics import classification_metrics
from dppmask.evaluation.supervised import FineTuned, FineTuning, fine_tune
from dppmask.evaluation.supervised.targets import mixing, soft_cross_entropy

DATA = Coloured(train_size=24, val_size=11)
SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "warmup_epochs": 1,
    "batch_size": 8,
    "micro_batch": 4,
    "base_lr": 0.05,
    "min_lr": 1e-5,
    "layer_decay": 0.65,
    "weight_decay": 0.05,
    "ema": 0.9,
}


def fresh() -> Classifier:
    return new_classifier(tiny_encoder(), DATA.class_names, pooling="mean", drop_path=0.2, seed=0)


def tune(folder: Path, settings: dict[str, Any] | None = None, **options: Any) -> FineTuned:
    """Everything that is random is switched on."""
    defaults = {
        "classifier": fresh(),
        "train": DATA.split("train"),
        "val": DATA.split("val"),
        "loss": soft_cross_entropy,
        "score": classification_metrics,
        "mix": mixing(3, 0.8, 1.0, 0.1),
        "save_every": 2,
    }
    return fine_tune(settings=FineTuning(**SETTINGS | (settings or {})), folder=folder, **defaults | options)
