"""Checkpoints: written atomically, read without executing anything."""

import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import Callback, Trainer

from dppmask.errors import UserError, short_reason
from dppmask.files import replace_file

log = logging.getLogger(__name__)

LAST = "last.ckpt"
DAMAGED = (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile)


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoints, each the old file or the new one at any moment (see :func:`replace_file`)."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Replace ``path``; the old file lives until the new one is complete.

        Raises:
            UserError: If the disk is full; the old file is intact.
        """
        with replace_file(Path(path)) as handle:
            torch.save(checkpoint, handle)

    def load_checkpoint(
        self, path: _PATH, map_location: Any | None = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint; always with ``weights_only=True``."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: _PATH) -> None:
        """Delete a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        UserError: If the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise UserError(
            f"checkpoint {path} is damaged or cut short ({short_reason(error)}); "
            f"put a kept one in its place, {_kept(path)}"
        ) from None


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from: ``last.ckpt``, else the latest kept one, else None."""
    kept = sorted(folder.glob("epoch_*.ckpt"))
    last = folder / LAST
    return last if last.exists() else kept[-1] if kept else None


def _kept(path: Path) -> str:
    kept = sorted(other.name for other in path.parent.glob("epoch_*.ckpt") if other != path)
    return f"for example {kept[-1]}" if kept else "but this run has none: start it again under another name"


class SaveCheckpoints(Callback):
    """Saves ``last.ckpt`` and the kept ``epoch_XXXX.ckpt``, only ever between two optimiser steps.

    Lightning's counters of a checkpoint taken at the last batch of an epoch would restart inside it, so
    such a step is saved one hook later, when the epoch counts as done.

    Args:
        folder: Where to.
        every_steps: Optimiser steps between two versions of ``last.ckpt``.
        every_epochs: Finished epochs between two kept checkpoints; 0 = keep none.
    """

    def __init__(self, folder: Path, *, every_steps: int, every_epochs: int) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self.every_epochs = every_epochs
        self._epoch_complete = False

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._epoch_complete = batch_idx + 1 == trainer.num_training_batches
        step_ends = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if step_ends and not self._epoch_complete and self._last_is_due(trainer):
            self._save(trainer, LAST)

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        if not self._epoch_complete:
            return  # stopped in the middle; that step is saved
        finished = trainer.current_epoch + 1
        if self.every_epochs and finished % self.every_epochs == 0:
            self._save(trainer, f"epoch_{finished:04d}.ckpt")
        if finished == trainer.max_epochs or self._last_is_due(trainer):
            self._save(trainer, LAST)

    def _last_is_due(self, trainer: Trainer) -> bool:
        return trainer.should_stop or trainer.global_step % self.every_steps == 0

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self.folder / name, weights_only=False)
        log.info("saved %s at step %d", name, trainer.global_step)
