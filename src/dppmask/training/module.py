"""The step: images → context → mask → model → loss, every random number a function of what is counted."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from dppmask.errors import UserError
from dppmask.masks.base import Mask, MaskContext, MaskRatio, MaskStrategy, num_masked_for
from dppmask.models.base import MaskedImageModel
from dppmask.rng import fold_in, seeded
from dppmask.training.optim import adamw, clip_each_gradient
from dppmask.training.schedule import Schedule
from dppmask.training.sharding import shard
from dppmask.training.trainee import Trainee

# The last counter of a generator keeps its stream apart from the mask noise, which is (seed, step, slot).
MODEL_NOISE, COUNT_NOISE = 1, 2


class Pretraining(Trainee):
    """A method and a mask strategy as Lightning trains them.

    Args:
        model: The method.
        strategy: Chooses the masks.
        ratio: How many patches are hidden.
        schedule: Learning rate and length.
        seed: The run's seed.
        betas: Momenta of AdamW.
        clip_grad: Largest norm of each parameter's gradient; None = any.
        loader: Called with ``world_size``, ``rank`` and ``pin_memory``, gives the training batches.
    """

    model: MaskedImageModel

    def __init__(
        self,
        model: MaskedImageModel,
        strategy: MaskStrategy,
        ratio: MaskRatio,
        schedule: Schedule,
        *,
        seed: int,
        loader: Callable[..., Iterable[Any]],
        betas: tuple[float, float] = (0.9, 0.95),
        clip_grad: float | None = None,
    ) -> None:
        super().__init__(model, schedule, seed=seed, loader=loader)
        self.model.needs_attention = "attention" in strategy.needs
        self.strategy = strategy
        self.ratio = ratio
        self.betas = betas
        self.clip_grad = clip_grad

    def configure_model(self) -> None:
        """Lightning gives a device mesh where weights are to be sharded."""
        if self.device_mesh is not None:
            shard(self, self.model.encoder, self.device_mesh["data_parallel"])

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        step, slot = self.global_step, self.slot(batch_idx)
        with seeded(self.seed, step, slot, MODEL_NOISE, device=self.device):
            context = self.model.context(batch.images, progress=self.progress, epoch=self.current_epoch)
            context.sample_ids, context.crops = batch.sample_ids, batch.crops
            mask = self.draw_mask(context, step, slot)
            output = self.model(context, mask)
        loss = output.loss
        if (objective := self.strategy.objective(mask, output.patch_loss)) is not None:
            loss = loss + objective
        metrics = {"loss": loss, **output.metrics}
        return {"loss": loss, "metrics": {name: value.detach() for name, value in metrics.items()}}

    def draw_mask(self, context: MaskContext, step: int, slot: int) -> Mask:
        """The mask of one micro-batch; methods that need equal counts get one count for the whole step."""
        count: int | Tensor
        if self.model.needs_equal_counts:
            count = self.ratio.draw(context.num_patches, generator=fold_in(self.seed, step))
        else:
            generator = fold_in(self.seed, step, slot, COUNT_NOISE)
            count = self.ratio.draw_per_image(context.batch_size, context.num_patches, generator=generator)
            count = count.to(context.device)
        return self.strategy(context, count, generator=fold_in(self.seed, step, slot))

    def try_masks(self) -> None:
        """Draw masks for one image, with the lowest and the highest ratio: what does not fit shows here.

        Nothing that is trained or counted changes, and no random number of the training is used.

        Raises:
            UserError: If the strategy refuses the grid, the images or the number of patches.
        """
        batch: Any = next(iter(self._loader(batch_size=1, accumulate=1, num_workers=0)))
        strategy = deepcopy(self.strategy)  # some count what they do
        try:
            with seeded(self.seed), torch.no_grad():
                context = self.model.context(batch.images)
                context.sample_ids, context.crops = batch.sample_ids, batch.crops
                for mask_ratio in (self.ratio.low, self.ratio.high):
                    num_masked = num_masked_for(mask_ratio, context.num_patches)
                    strategy(context, num_masked, generator=fold_in(self.seed))
        except UserError:
            raise
        except (ValueError, NotImplementedError) as error:
            raise UserError(f"mask {type(strategy).__name__} cannot be drawn: {error}") from None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        schedule = self.schedule
        return adamw(self, lr=schedule.lr, weight_decay=schedule.weight_decay, betas=self.betas)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The gradients are complete, and were looked at by then."""
        self.model.before_step(self.current_epoch)
        if self.clip_grad is not None:
            clip_each_gradient(self, self.clip_grad)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """One optimiser step, then the method's own hook (EMA teachers)."""
        step = self.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.model.after_step((step + 1) / self.schedule.total_steps)
