"""``fine_tune``: train a whole classifier on labelled images, in a folder that survives any interruption."""

import json
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor

from dppmask import specs
from dppmask.data.augment import FineTuneTransform
from dppmask.data.base import ImageSource
from dppmask.data.module import TrainLoader
from dppmask.data.transforms import EvalTransform, TrainTransform
from dppmask.errors import UserError
from dppmask.evaluation import ranks
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.classifier import Classifier, load_classifier, save_classifier
from dppmask.evaluation.features import eval_transform_of, weights_hash
from dppmask.evaluation.metrics import Scored
from dppmask.evaluation.supervised.settings import FineTuning
from dppmask.evaluation.supervised.targets import plain_targets
from dppmask.evaluation.supervised.validation import Row, Score, Validation
from dppmask.files import write_json
from dppmask.models.encoder import Encoder
from dppmask.training import settings as stored_options
from dppmask.training.checkpoints import newest
from dppmask.training.fitting import CHECKPOINTS, fit
from dppmask.training.optim import layer_wise_groups
from dppmask.training.supervised import Loss, Mix, Supervised

CLASSIFIER, FINISHED = "classifier", "finished.json"

LOG_EVERY = 10  # optimiser steps between two lines of metrics.jsonl
_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True, eq=False)
class FineTuned:
    """What a fine-tuning left.

    Attributes:
        classifier: After the last epoch, on the CPU; with averaged weights where an average was kept.
        rows: See :class:`~dppmask.evaluation.supervised.validation.Validation`.
        chance: The metrics of label frequencies alone.
        notes: What was left out, in sentences.
    """

    classifier: Classifier
    rows: list[Row]
    chance: dict[str, float]
    notes: list[str] = field(default_factory=list)

    @property
    def last(self) -> Scored:
        """Metrics after the last epoch, with their standard errors."""
        return {name: (self.rows[-1][name], self.rows[-1][f"{name}_error"]) for name in self.chance}

    @property
    def best(self) -> Scored:
        """Of each metric its best epoch on the held-out part: optimistic, as that part chose it."""
        rows = {name: max(self.rows, key=lambda row: row[name]) for name in self.chance}
        return {name: (row[name], row[f"{name}_error"]) for name, row in rows.items()}


def fine_tune(
    classifier: Classifier,
    train: ImageSource,
    val: ImageSource,
    settings: FineTuning,
    *,
    loss: Loss,
    score: Score,
    folder: str | Path,
    mix: Mix | None = None,
    transform: TrainTransform | None = None,
    val_transform: EvalTransform | None = None,
    seed: int = 0,
    compute: Compute | None = None,
    identity: Mapping[str, Any] | None = None,
    save_every: int = 200,
) -> FineTuned:
    """Train a classifier, or go on with it where it was interrupted, or read what it came to.

    The same arguments give the same weights, bit for bit on a CPU, however often the training was
    interrupted. It runs on all processes of the process group there is, if any.

    Args:
        classifier: Starts as it is; trained in place unless the folder holds finished work.
        train: Labelled images to learn from.
        val: Labelled images that are scored after every epoch.
        settings: How to train.
        loss: From logits ``[B, C]`` and targets to the scalar that is minimised.
        score: From logits ``[n, C]`` and labels of ``val`` to metrics with their standard errors.
        folder: Where checkpoints, log and finally ``classifier/`` go. Work on something else in it is
            refused.
        mix: From images and labels of a micro-batch to images and targets, for example mixup. By default
            targets are the labels as ones and zeros, float32 ``[B, C]``.
        transform: Of the training images; by default :class:`~dppmask.data.augment.FineTuneTransform`.
        val_transform: Of the others; by default the usual one for testing.
        seed: Of the order and augmentation of images, of mixing and of dropped paths.
        compute: Where, with which precision, and in which batches ``val`` is scored.
        identity: Plain data about the rest of what is trained (data, loss, mixing): a folder is gone on with
            only if it is equal.
        save_every: Optimiser steps between two checkpoints.

    Raises:
        UserError: If an option is wrong, the folder holds other work, the disk is full, or the loss becomes
            NaN or infinite.
        KeyboardInterrupt: If a signal stopped it early; what was done is saved.
    """
    folder, compute = Path(folder), compute or Compute()
    transform = transform or fine_tune_transform_of(classifier.encoder)
    val_transform = val_transform or eval_transform_of(classifier.encoder, val)
    mix = mix or partial(plain_targets, num_classes=len(classifier.class_names))
    work = specs.describe(
        {
            "settings": vars(settings),
            "weights": weights_hash(classifier),
            "class_names": classifier.class_names,
            "num_images": [len(train), len(val)],
            "transforms": [transform, val_transform],
            "seed": seed,
            "precision": compute.precision,
            **(identity or {}),
        }
    )
    if is_finished(folder, work):
        return read_finished(folder)
    hardware = hardware_options(settings, compute)
    loader = partial(
        TrainLoader,
        train,
        transform,
        batch_size=settings.micro_batch,
        seed=seed,
        num_workers=compute.num_workers,
        accumulate=hardware["accumulate"],
    )
    module = Supervised(
        classifier,
        loss,
        mix,
        parameter_groups(classifier, settings),
        settings.schedule(len(train)),
        seed=seed,
        loader=loader,
        betas=settings.betas,
        clip_grad=settings.clip_grad,
    )
    validation = Validation(Part(val, "val", val), val_transform, compute, score)
    length = {"epochs": settings.epochs, "ema": settings.ema}
    keeping = {"log_every": LOG_EVERY, "save_every": 0, "save_last_every": save_every}
    finished = fit(
        folder,
        {"finetune": work, **hardware, **length, **keeping},
        lambda trainer: module,
        partial(_keep, classifier, validation, folder),
        callbacks=[validation],
        checkpoint=newest(folder / CHECKPOINTS),
    )
    if not finished:
        raise KeyboardInterrupt(f"stopped early and saved in {folder}; the same command goes on")
    return FineTuned(classifier.cpu().eval(), validation.rows, validation.chance, validation.notes)


def parameter_groups(classifier: Classifier, settings: FineTuning) -> list[dict[str, Any]]:
    """All parameters by layer; the head is as deep as what stands behind the encoder's blocks."""
    encoder = classifier.encoder
    last_layer = encoder.depth + 1

    def layer_of(name: str) -> int:
        owner, _, rest = name.partition(".")
        return encoder.layer_of(rest) if owner == "encoder" else last_layer

    return layer_wise_groups(
        classifier.named_parameters(),
        layer_of,
        last_layer=last_layer,
        layer_decay=settings.layer_decay,
        weight_decay=settings.weight_decay,
    )


def hardware_options(settings: FineTuning, compute: Compute) -> dict[str, Any]:
    """What the trainer must know of the processes there are.

    Raises:
        UserError: If they cannot share the micro-batches of an update evenly.
    """
    micro_batches, processes = settings.batch_size // settings.micro_batch, ranks.num_ranks()
    if micro_batches % processes:
        raise UserError(
            f"batch_size / micro_batch = {micro_batches} micro-batches cannot be shared evenly by "
            f"{processes} devices; choose a smaller micro_batch or other devices"
        )
    device = torch.device(compute.device)
    hosts = _hosts()
    per_node = hosts.count(socket.gethostname())
    return {
        "accelerator": "gpu" if device.type == "cuda" else device.type,
        "devices": [device.index] if processes == 1 and device.index is not None else per_node,
        "num_nodes": processes // per_node,
        "strategy": "ddp" if processes > 1 else "auto",
        "precision": _PRECISIONS[compute.precision],
        "accumulate": micro_batches // processes,
        "deterministic": False,
        "loggers": [],
    }


def _hosts() -> list[str]:
    """The host of every rank."""
    hosts = [socket.gethostname()] * ranks.num_ranks()
    if len(hosts) > 1:
        dist.all_gather_object(hosts, socket.gethostname())
    return hosts


def is_finished(folder: Path, work: Mapping[str, Any]) -> bool:
    """Whether a folder holds this work, and all of it.

    Raises:
        UserError: If the folder holds other work, naming what differs.
    """
    old = stored_options.stored(folder)
    if old is None:
        return False
    if "finetune" not in old:
        raise UserError(f"{folder} holds something else than a fine-tuning; choose another folder")
    for name, value in work.items():
        if old["finetune"].get(name) != value:
            raise UserError(
                f"{folder} holds a fine-tuning with other {name}; choose another folder, or delete it"
            )
    return (folder / FINISHED).exists()


def read_finished(folder: Path) -> FineTuned:
    """What a finished fine-tuning left."""
    return FineTuned(load_classifier(folder / CLASSIFIER), **json.loads((folder / FINISHED).read_text()))


def _keep(
    classifier: Classifier,
    validation: Validation,
    folder: Path,
    trainer: Trainer,
    averaged: Mapping[str, Tensor],
) -> None:
    """Write the classifier and what it scores; checkpoints are of no more use then."""
    classifier.load_state_dict(classifier.state_dict() | dict(averaged))
    if trainer.is_global_zero:
        save_classifier(classifier, folder / CLASSIFIER)
        found = {"rows": validation.rows, "chance": validation.chance, "notes": validation.notes}
        write_json(folder / FINISHED, found)  # last: who finds it finds the classifier too
        shutil.rmtree(folder / CHECKPOINTS)


def fine_tune_transform_of(encoder: Encoder, **options: Any) -> FineTuneTransform:
    """The augmentation at the size and with the normalisation of an encoder; ``options`` are its own."""
    height, width = encoder.image_size
    return FineTuneTransform((height, width), mean=encoder.mean, std=encoder.std, **options)
