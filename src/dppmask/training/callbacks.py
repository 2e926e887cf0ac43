"""What happens beside the step: numbers on disk, progress on the screen, averaged weights."""

import json
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from dppmask.errors import UserError
from dppmask.files import append_line, write_text
from dppmask.models.weights import AVERAGE

log = logging.getLogger(__name__)


class JsonMetrics(Callback):
    """Appends one JSON object a line to ``metrics.jsonl`` and hands it to the loggers.

    A line holds the means over all images since the line before, and is written every ``every_steps``
    optimiser steps and at the end of each epoch. Sums travel in the checkpoint and lines behind a restored
    step are dropped, so an interrupted run leaves the file of an undisturbed one (but for the speed).

    Args:
        path: The file.
        every_steps: Optimiser steps between two lines.
    """

    def __init__(self, path: Path, *, every_steps: int) -> None:
        self.path = path
        self.every_steps = every_steps
        self.last: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}  # of the metrics of all micro-batches since the last line
        self._steps = 0  # since the last line
        self._timed_steps = 0  # those of them that were done in this process, since ...
        self._timed_since = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {name: value.cpu() for name, value in self._sums.items()}, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums, self._steps = state_dict["sums"], state_dict["steps"]

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            keep_lines(self.path, trainer.global_step)
        self._timed_steps, self._timed_since = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name, value in outputs["metrics"].items():
            mean = mean_over_ranks(trainer, value.double())
            self._sums[name] = self._sums.get(name, torch.zeros_like(mean)).to(mean.device) + mean
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._steps += 1
        self._timed_steps += 1
        epoch_ends = batch_idx + 1 == trainer.num_training_batches
        if epoch_ends or trainer.global_step % self.every_steps == 0:
            self._write(trainer, module.schedule.images_per_step)

    def _write(self, trainer: Trainer, images_per_step: int) -> None:
        micro_batches = self._steps * trainer.accumulate_grad_batches
        means = {name: value.item() / micro_batches for name, value in self._sums.items()}
        now = time.perf_counter()
        speed = self._timed_steps * images_per_step / (now - self._timed_since)
        self.last = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            **means,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": round(speed, 1),
        }
        self._sums, self._steps = {}, 0
        self._timed_steps, self._timed_since = 0, now
        if trainer.is_global_zero:
            append_line(self.path, json.dumps(self.last))
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in self.last.items() if k != "step"}, step=trainer.global_step)


def mean_over_ranks(trainer: Trainer, value: Tensor) -> Tensor:
    """The mean of a value that each rank has; does not wait for the device."""
    if trainer.world_size == 1:
        return value
    return cast(Tensor, trainer.strategy.reduce(value, reduce_op="mean"))


def keep_lines(path: Path, step: int) -> None:
    """Drop the lines behind ``step``, and a line that a killed process did not finish."""
    if path.exists():
        lines = [json.dumps(line) + "\n" for line in read_metrics(path) if line["step"] <= step]
        write_text(path, "".join(lines))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The finished lines of a ``metrics.jsonl``; none where there is no file yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


class Progress(Callback):
    """One line on stderr: epoch, step, loss, learning rate, images/s, time left.

    On a terminal the line is rewritten in place; elsewhere a new one appears every ``interval`` seconds.

    Args:
        metrics: Where the numbers come from; comes earlier in the list of callbacks.
        interval: Seconds between two lines in a file.
        stream: Where to; standard error by default.
    """

    def __init__(self, metrics: JsonMetrics, *, interval: float = 30.0, stream: TextIO | None = None) -> None:
        self.metrics = metrics
        self.interval = interval
        self.stream = stream or sys.stderr
        self._shown: dict[str, float] = {}
        self._shown_at = float("-inf")
        self._start = (0.0, 0)

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self._start = (time.perf_counter(), trainer.global_step)
        if trainer.is_global_zero:
            schedule = module.schedule
            todo = f"{schedule.total_steps - trainer.global_step} of {schedule.total_steps} steps"
            print(
                f"training for {todo}, {schedule.images_per_step} images each", file=self.stream, flush=True
            )

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        due = self.stream.isatty() or now - self._shown_at >= self.interval
        if trainer.is_global_zero and due and self.metrics.last is not self._shown and self.metrics.last:
            self._shown, self._shown_at = self.metrics.last, now
            self._show(self.line(trainer, module.schedule.total_steps, now))

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        new = self.stream.isatty() or self.metrics.last is not self._shown
        if trainer.is_global_zero and self.metrics.last and new:
            self._show(self.line(trainer, module.schedule.total_steps, time.perf_counter()), end="\n")

    def line(self, trainer: Trainer, total: int, now: float) -> str:
        """The text of one report."""
        started, first_step = self._start
        done = trainer.global_step - first_step
        left = (now - started) / max(done, 1) * (total - trainer.global_step)
        last = self.metrics.last
        return (
            f"epoch {int(last['epoch']) + 1}/{trainer.max_epochs}  step {trainer.global_step}/{total}  "
            f"loss {last['loss']:.4f}  lr {last['lr']:.2e}  {last['images_per_second']:.0f} images/s  "
            f"left {timedelta(seconds=round(left))}"
        )

    def _show(self, text: str, end: str | None = None) -> None:
        if self.stream.isatty():
            print(f"\r\x1b[2K{text}", end=end or "", file=self.stream, flush=True)
        else:
            print(text, file=self.stream, flush=True)


class UnreadableImages(Callback):
    """When the training ends or stops, says how many images this process could not read."""

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        data: Any = trainer.train_dataloader
        if not (count := data.source.num_unreadable):
            return
        log.warning("images that could not be read: %d of %d", count, len(data.source))
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "log"
            print(f"images that could not be read: {count}; {path} names them", file=sys.stderr, flush=True)


class Average(Callback):
    """An exponential moving average of the method's parameters, updated once per optimiser step.

    Args:
        decay: Weight of the past at each optimiser step, in (0, 1).

    Raises:
        UserError: If the decay is outside (0, 1).
    """

    def __init__(self, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise UserError(f"ema must be in (0, 1), got {decay}; 0.9999 is common")
        self.decay = decay
        self.weights: dict[str, Tensor] = {}

    @property
    def state_key(self) -> str:
        """Where who loads the weights of a run looks for them."""
        return AVERAGE

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.weights = state_dict["weights"]

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        for name, parameter in module.model.named_parameters():
            past = self.weights.get(name, parameter)
            self.weights[name] = past.detach().to(parameter.device, copy=True)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            current = [parameter.detach() for _, parameter in module.model.named_parameters()]
            torch._foreach_lerp_(list(self.weights.values()), current, 1.0 - self.decay)
