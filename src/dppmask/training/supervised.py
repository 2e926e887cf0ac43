"""The step of learning from labels: images and labels → mixed images and targets → logits → loss."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dppmask.errors import UserError
from dppmask.rng import seeded
from dppmask.training.schedule import Schedule
from dppmask.training.trainee import Trainee

Loss = Callable[[Tensor, Tensor], Tensor]  # logits [B, C] and targets → scalar
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # images and labels → images and targets
Groups = list[dict[str, Any]]  # parameters with their lr_scale and weight_decay


class Supervised(Trainee):
    """A classifier as Lightning trains it, by AdamW.

    Args:
        model: From images ``[B, C, H, W]`` to logits.
        loss: Of logits in float32 and the targets that ``mix`` makes.
        mix: Called on each micro-batch with images and labels, which it may change in place.
        groups: The parameters, as :func:`~dppmask.training.optim.layer_wise_groups` makes them.
        schedule: Learning rate and length.
        seed: Of everything random.
        loader: See :class:`~dppmask.training.trainee.Trainee`.
        betas: Momenta of AdamW.
        clip_grad: Largest joint norm of all gradients; None = any.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        mix: Mix,
        groups: Groups,
        schedule: Schedule,
        *,
        seed: int,
        loader: Callable[..., Iterable[Any]],
        betas: tuple[float, float] = (0.9, 0.999),
        clip_grad: float | None = None,
    ) -> None:
        super().__init__(model, schedule, seed=seed, loader=loader)
        self.loss = loss
        self.mix = mix
        self.groups = groups
        self.betas = betas
        self.clip_grad = clip_grad

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        if batch.labels is None:
            raise UserError("fine-tuning needs labelled images; sort them into one folder per class")
        with seeded(self.seed, self.global_step, self.slot(batch_idx), device=self.device):
            images, targets = self.mix(batch.images, batch.labels)
            loss = self.loss(self.model(images).float(), targets)
        return {"loss": loss, "metrics": {"loss": loss.detach()}}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.groups, lr=self.schedule.lr, betas=self.betas)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The gradients are complete, and were looked at by then."""
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_grad)
