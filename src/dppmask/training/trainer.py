"""Lightning's Trainer, set up for a run and kept quiet: its messages go to ``log``, nothing to stdout."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from dppmask.errors import UserError, nearest
from dppmask.training.checkpoints import AtomicCheckpointIO

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
STRATEGIES = ("auto", "ddp", "fsdp2")
LOGGERS = ("tensorboard", "wandb")

# What Lightning and torch remark about choices that are ours, by the start of the message.
SILENCED = (
    "The 'train_dataloader' does not have many workers",
    "The number of training batches",
    "Trying to infer the `batch_size`",
    ".*isinstance\\(treespec, LeafSpec\\)",
    "Found .* module\\(s\\) in eval mode",
    "You passed `Trainer\\(accelerator='cpu', precision='16-mixed'\\)`",  # refused by build_trainer
    "The .grad attribute of a Tensor that is not a leaf",  # torch.compile looks at it
    "FSDP2-wrapped module .* returned a view tensor",  # which nothing changes in place
)


def build_trainer(config: Mapping[str, Any], run: Path, callbacks: Sequence[Callback]) -> Trainer:
    """A Trainer that saves through :class:`AtomicCheckpointIO` and prints and validates nothing itself.

    Raises:
        UserError: For an unknown precision, strategy or logger, or a device that is not there.
    """
    _check_choice("precision", config["precision"], PRECISIONS)
    try:
        trainer = Trainer(
            accelerator=config["accelerator"],
            devices=config["devices"],
            num_nodes=config["num_nodes"],
            strategy=_strategy(config),
            precision=config["precision"],
            max_epochs=config["epochs"],
            accumulate_grad_batches=config["accumulate"],
            deterministic=config["deterministic"],
            callbacks=list(callbacks),
            logger=[_logger(name, run) for name in config["loggers"]],
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except UserError:
        raise
    except (MisconfigurationException, ImportError, ValueError, RuntimeError, TypeError) as error:
        raise UserError(f"Lightning refuses these options: {' '.join(str(error).split())}") from None
    if trainer.precision != config["precision"]:  # Lightning takes another one where a device lacks it
        raise UserError(f"precision {config['precision']} needs a GPU; use {trainer.precision} here")
    return trainer


def _strategy(config: Mapping[str, Any]) -> str | Strategy:
    _check_choice("strategy", config["strategy"], STRATEGIES)
    if config["strategy"] == "ddp":
        return DDPStrategy()
    if config["strategy"] == "fsdp2":
        if config["ema"] is not None:
            raise UserError(
                "ema averages whole weights and fsdp2 shards them; leave ema out, or use strategy ddp"
            )
        ranks = config["devices"] * config["num_nodes"]
        return ModelParallelStrategy(
            data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    return "auto"


def _logger(name: str, run: Path) -> Logger:
    _check_choice("loggers", name, LOGGERS)
    if importlib.util.find_spec(name) is None:
        raise UserError(f"loggers: {name} is not installed; pip install {name}, or leave it out")
    if name == "tensorboard":
        return TensorBoardLogger(run, name="", version="tensorboard")
    return WandbLogger(name=run.name, save_dir=run, project="dppmask")


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(
            f"{option} must be one of {', '.join(choices)}, got {value!r}; {nearest(str(value), choices)}"
        )


@contextmanager
def determinism_kept() -> Iterator[None]:
    """Undo what every Trainer does to torch's deterministic mode."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def is_first_process() -> bool:
    """Whether this process owns the run folder: rank 0, also before Lightning has set up the ranks."""
    return getattr(rank_zero_only, "rank", 0) == 0


class Withheld(logging.Handler):
    """Keeps warnings for which there is no place yet."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


class OneLine(logging.Formatter):
    """One line a message, also for Lightning's banners."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """Time, level, and the words of the message."""
        record.message = " ".join(record.message.split()).strip("- ")
        return super().formatMessage(record)


def log_file(run: Path) -> logging.FileHandler:
    """``run/log`` for the first process; the warnings of every other go to a file of their own beside it."""
    rank = getattr(rank_zero_only, "rank", 0)
    handler = logging.FileHandler(run / (f"log-rank-{rank}" if rank else "log"), delay=True)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.WARNING if rank else logging.INFO)
    return handler


@contextmanager
def quiet(handler: logging.Handler) -> Iterator[None]:
    """Give the messages of this package and of Lightning to ``handler``; drop the remarks in ``SILENCED``."""
    names = ("dppmask", "lightning", "lightning.pytorch", "lightning.fabric")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            for message in SILENCED:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()
