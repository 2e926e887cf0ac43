"""Scores on the held-out part after every epoch of a training, each image counted once."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.func import functional_call

from dppmask.data.transforms import EvalTransform
from dppmask.evaluation import ranks
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.baselines import one_hot
from dppmask.evaluation.features import frozen, part_batches
from dppmask.evaluation.metrics import Scored, values
from dppmask.training.callbacks import Average, mean_over_ranks

Score = Callable[[Tensor, Tensor], Scored]  # logits [n, C] and labels, in index order, on the CPU
Row = dict[str, float]


class Validation(Callback):
    """After each epoch, scores the held-out part and keeps a row: epoch, mean loss, rate, metrics, errors.

    Rows travel in the checkpoint. With averaged weights these are scored.

    Args:
        part: The held-out part.
        transform: For its images.
        compute: Where, and in which batches.
        score: The metrics.

    Attributes:
        rows: One per finished epoch; metric "m" has its standard error under "m_error".
        chance: The metrics of the label frequencies, the same scores for every image; empty before the first
            row.
        num_unreadable: Images that could not be read and are left out.
    """

    def __init__(self, part: Part, transform: EvalTransform, compute: Compute, score: Score) -> None:
        self.part = part
        self.transform = transform
        self.compute = compute
        self.score = score
        self.rows: list[Row] = []
        self.chance: dict[str, float] = {}
        self.num_unreadable = 0
        self._loss = torch.zeros((), dtype=torch.float64)  # summed over the epoch's micro-batches
        self._micro_batches = 0

    @property
    def notes(self) -> list[str]:
        """What was left out, in sentences."""
        if not self.num_unreadable:
            return []
        return [f"{self.part.split}: {self.num_unreadable} images could not be read and are left out"]

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "chance": self.chance,
            "num_unreadable": self.num_unreadable,
            "loss": self._loss.cpu(),
            "micro_batches": self._micro_batches,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.chance = state_dict["rows"], state_dict["chance"]
        self.num_unreadable = state_dict["num_unreadable"]
        self._loss, self._micro_batches = state_dict["loss"], state_dict["micro_batches"]

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = mean_over_ranks(trainer, outputs["metrics"]["loss"].double())
        self._loss = self._loss.to(loss.device) + loss
        self._micro_batches += 1

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        if self._micro_batches < trainer.num_training_batches:
            return  # told to stop in the middle
        logits, labels = self._logits(module.model, averaged_weights(trainer))
        found = self.score(logits, labels)
        if not self.chance:
            frequencies = one_hot(labels, logits.shape[1]).mean(0)
            self.chance = values(self.score(frequencies.expand_as(logits), labels))
        self.num_unreadable = len(self.part.images) - len(labels)
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "loss": self._loss.item() / self._micro_batches,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                **values(found),
                **{f"{name}_error": error for name, (_, error) in found.items()},
            }
        )
        self._loss, self._micro_batches = torch.zeros_like(self._loss), 0
        if trainer.is_global_zero:
            scores = "  ".join(f"{name} {value:.4f}" for name, value in values(found).items())
            text = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs} on {self.part.split}: {scores}"
            print(f"\r\x1b[2K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)

    def _logits(self, model: nn.Module, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of all images that can be read, and their labels; ranks divide the work and all get everything."""
        device = next(model.parameters()).device
        share = ranks.share_of(len(self.part.images), self.compute.batch_size)
        logits: list[Tensor] = []
        labels: list[Tensor] = []
        with frozen(model, self.compute):
            for batch in part_batches(self.part, self.transform, self.compute, "scores", among=share):
                logits.append(functional_call(model, dict(weights), batch.images.to(device)).float().cpu())
                labels.append(cast(Tensor, batch.labels))
        joined = [ranks.joined_rows(torch.cat(rows) if rows else None) for rows in (logits, labels)]
        return cast(Tensor, joined[0]), cast(Tensor, joined[1])


def averaged_weights(trainer: Any) -> Mapping[str, Tensor]:
    """Those of the trainer's ``Average``; empty where it has none."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, Average)]
    return averages[0].weights if averages else {}
