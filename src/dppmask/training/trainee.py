"""What every training shares: batches by slot, and the rates of each step."""

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from dppmask.training.optim import set_rates
from dppmask.training.schedule import Schedule


class Trainee(LightningModule):
    """A network as Lightning trains it; a subclass says what a step is.

    Args:
        model: The network.
        schedule: Learning rate and length.
        seed: The run's seed.
        loader: Called with ``world_size``, ``rank`` and ``pin_memory``, gives the training batches.
    """

    def __init__(
        self, model: nn.Module, schedule: Schedule, *, seed: int, loader: Callable[..., Iterable[Any]]
    ) -> None:
        super().__init__()
        self.model = model
        self.schedule = schedule
        self.seed = seed
        self._loader = loader

    def train_dataloader(self) -> Iterable[Any]:
        return self._loader(
            world_size=self.trainer.world_size,
            rank=self.trainer.global_rank,
            pin_memory=self.device.type == "cuda",
        )

    def on_train_epoch_start(self) -> None:
        loader: Any = self.trainer.train_dataloader
        loader.set_epoch(self.current_epoch)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Lightning refuses frozen dataclasses."""
        return to_device(batch, device)

    def slot(self, batch_idx: int) -> int:
        """Position of this rank's micro-batch within its optimiser step."""
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        return micro_batch * self.trainer.world_size + self.trainer.global_rank

    @property
    def progress(self) -> float:
        """Share of the training done."""
        return self.global_step / self.schedule.total_steps

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """One optimiser step at this step's rates."""
        step, schedule = self.global_step, self.schedule
        set_rates(optimizer, lr=schedule.lr_at(step), weight_decay=schedule.weight_decay_at(step))
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch (tensor or dataclass of tensors, nested) on another device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if is_dataclass(batch) and not isinstance(batch, type):
        moved = {field.name: to_device(getattr(batch, field.name), device) for field in fields(batch)}
        return replace(batch, **moved)
    return batch
