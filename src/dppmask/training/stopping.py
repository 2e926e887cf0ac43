"""Reasons to stop early: a signal, or a loss that is no number. Both leave a run that can go on."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from dppmask.errors import UserError
from dppmask.files import replace_file

log = logging.getLogger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal(Callback):
    """On SIGTERM or Ctrl-C, finish the optimiser step and stop; a second Ctrl-C does not wait for the step.

    Under SLURM SIGUSR1 does the same, and the job is requeued.
    The checkpoint is saved by ``SaveCheckpoints``, which comes later in the list of callbacks. All ranks stop
    at the same step as soon as one of them was told to.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Wrap the whole training: gives back the handlers there were before, Lightning's own left aside."""
        before = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGUSR1)}
        try:
            yield
        finally:
            if in_main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Take over from Lightning, whose handlers stop or save in the middle of a step."""
        if in_main_thread():
            for number in [*STOPPING, *([signal.SIGUSR1] if slurm_job() else [])]:
                signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if any_rank(trainer, self.received is not None):
            trainer.should_stop = True
            log.info("told to stop: saving at step %d", trainer.global_step)

    def requeue(self) -> None:
        """Put the SLURM job back into the queue if SIGUSR1 asked for it; for one rank to call.

        Raises:
            UserError: If SLURM refuses.
        """
        job = slurm_job()
        if self.received != signal.SIGUSR1 or job is None:
            return
        try:
            subprocess.run(["scontrol", "requeue", job], check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(
                f"SLURM job {job} is saved but could not be requeued: {error}; submit it again"
            ) from None
        log.info("requeued SLURM job %s", job)

    def _receive(self, number: int, frame: Any) -> None:
        self.received = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


def in_main_thread() -> bool:
    """Whether this thread may set signal handlers."""
    return threading.current_thread() is threading.main_thread()


def slurm_job() -> str | None:
    """The id by which SLURM requeues this job; None outside SLURM."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def requeued() -> bool:
    """Whether SLURM has started this job again: the same command must then go on instead of starting anew."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0


def any_rank(trainer: Trainer, flag: bool | Tensor) -> bool:
    """Whether the flag is set on any rank; waits for the device."""
    if trainer.world_size == 1:
        return bool(flag)
    value = torch.as_tensor(flag, dtype=torch.float32, device=trainer.strategy.root_device)
    return bool(trainer.strategy.reduce(value, reduce_op="max"))


class StopOnNonFinite(Callback):
    """Before each optimiser step, look at its losses and gradients; where one is not finite, dump and stop.

    The dump holds the weights, which the bad step has not touched, and what is needed to repeat the step.
    With a gradient scaler (16-mixed) infinite gradients are normal, and only the losses are looked at.

    Args:
        folder: The run folder, where ``nonfinite-step-N.pt`` goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._micro_batches: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._micro_batches = []
        self._micro_batches.append({"sample_ids": batch.sample_ids, "crops": batch.crops})

    def on_before_backward(self, trainer: Trainer, module: Any, loss: Tensor) -> None:
        self._micro_batches[-1]["loss"] = loss.detach() * trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        total = torch.stack([micro_batch["loss"] for micro_batch in self._micro_batches]).sum()
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            norm = torch.nn.utils.get_total_norm(p.grad for p in module.parameters() if p.grad is not None)
            total = total + (norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if any_rank(trainer, ~total.isfinite()):
            self._dump_and_raise(trainer)

    def _dump_and_raise(self, trainer: Trainer) -> None:
        losses = torch.stack([micro_batch["loss"] for micro_batch in self._micro_batches]).tolist()
        path = self.folder / f"nonfinite-step-{trainer.global_step}.pt"
        weights = trainer.strategy.lightning_module_state_dict()  # collective where weights are sharded
        if trainer.global_rank:
            path = path.with_stem(f"{path.stem}-rank-{trainer.global_rank}")
            weights = {}
        dump = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "micro_batches": self._micro_batches,
            "state_dict": weights,
        }
        with replace_file(path) as handle:
            torch.save(dump, handle)
        what = "loss" if not torch.tensor(losses).isfinite().all() else "gradient"
        raise UserError(
            f"{what} is not finite at step {trainer.global_step} (loss {losses[-1]}): stopped before it, "
            f"with the last good weights and the batch in {path}; try a smaller base_lr or precision 32-true"
        )
