"""One training from its options to its end: trainer, run folder, log, signals, checkpoints."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from dppmask.errors import UserError
from dppmask.files import remove_unfinished, write_yaml
from dppmask.training import settings
from dppmask.training.callbacks import Average, JsonMetrics, Progress, UnreadableImages
from dppmask.training.checkpoints import SaveCheckpoints
from dppmask.training.environment import record_environment
from dppmask.training.stopping import StopOnNonFinite, StopOnSignal
from dppmask.training.trainee import Trainee
from dppmask.training.trainer import (
    Withheld,
    build_trainer,
    determinism_kept,
    is_first_process,
    log_file,
    quiet,
)

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"

Export = Callable[[Trainer, Mapping[str, Tensor]], None]  # is given the averaged weights, if there are any


def fit(
    run: Path,
    config: Mapping[str, Any],
    prepare: Callable[[Trainer], Trainee],
    export: Export,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None,
) -> bool:
    """Train and, at the end, export; whether the end was reached, or a signal came before.

    Args:
        run: The run folder, which is written to once every option is known to be right.
        config: Plain data for ``config.yaml``; the trainer reads its options of hardware and length there.
        prepare: Makes what is trained, and refuses what does not fit together.
        export: Called on every rank when all steps are done.
        callbacks: Act at the end of a step, before it is saved.
        checkpoint: Where to go on from; None = begin.

    Raises:
        UserError: If an option is wrong, the disk is full, or the loss becomes NaN or infinite.
    """
    stop = StopOnSignal()
    average = Average(config["ema"]) if config["ema"] is not None else None
    early = Withheld()
    with determinism_kept():
        with quiet(early):  # nothing is written before every option is known to be right
            trainer = build_trainer(config, run, _callbacks(run, config, average, callbacks, stop))
            module = prepare(trainer)
        with _run_folder(run, config, early.records), stop.listening():
            with suppress(SIGTERMException):  # Lightning's, if told to stop before the first step
                trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
            finished = trainer.global_step >= module.schedule.total_steps
            if finished:
                export(trainer, average.weights if average else {})
            elif is_first_process():
                stop.requeue()
    return finished


def _callbacks(
    run: Path,
    config: Mapping[str, Any],
    average: Average | None,
    extra: Sequence[Callback],
    stop: StopOnSignal,
) -> list[Callback]:
    """In the order in which they act at the end of a step: numbers first, the checkpoint after all state."""
    metrics = JsonMetrics(run / METRICS, every_steps=config["log_every"])
    own = [
        StopOnNonFinite(run),
        *([average] if average else []),
        metrics,
        Progress(metrics),
        UnreadableImages(),
    ]
    save = SaveCheckpoints(
        run / CHECKPOINTS, every_steps=config["save_last_every"], every_epochs=config["save_every"]
    )
    return [*own, *extra, stop, save]


@contextmanager
def _run_folder(run: Path, config: Mapping[str, Any], early: Sequence[logging.LogRecord]) -> Iterator[None]:
    """Open the folder, write what the run is made of, and keep its log, which begins with ``early``."""
    handler = log_file(run)
    if is_first_process():
        (run / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        for folder in (run, run / CHECKPOINTS):
            remove_unfinished(folder)
        if settings.stored(run) is None:
            write_yaml(run / settings.CONFIG, config)
        record_environment(run / "environment.json")
        for record in early:  # the other processes have the same to say
            handler.handle(record)
    with quiet(handler):
        try:
            yield
        except UserError as error:
            log.error("%s", error)
            raise
