"""How well a method predicts patches that one common mask hides, whatever masks it was trained with."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from dppmask.data.base import ImageSource, Split
from dppmask.evaluation.base import Part, Protocol, Result, Subject, check_least
from dppmask.evaluation.features import eval_transform_of, first_images, frozen, part_batches
from dppmask.evaluation.mask_measures import ratio
from dppmask.evaluation.pixels import load_mae
from dppmask.masks import MaskStrategy, RandomMask, num_masked_for
from dppmask.masks.base import check_ratio
from dppmask.models.mae import MAE
from dppmask.rng import fold_in

LEAVES_OUT = "loss of the training is no such thing: there, each run is scored on its own masks"


class ReconstructionLoss(Protocol):
    """Mean squared error of a run's MAE on hidden patches of whole images, the same patches for every run.

    A training's own loss depends on its masks: one that shows more leaves an easier task. Here strategy,
    ratio and noise are given, so that runs can be compared. Metric: "loss", in the space of the run's target
    (normalised patches where it was trained with ``norm_pix_loss``).

    Args:
        mask: Who is hidden; None = uniformly random patches.
        mask_ratio: Share of hidden patches.
        num_images: How many images at most; None = all.
        batch_size: Images that share a draw of noise.
        split: Which part of the data.

    Raises:
        UserError: If an argument is outside its range.
    """

    scenes = "multi"

    def __init__(
        self,
        mask: MaskStrategy | None = None,
        mask_ratio: float = 0.75,
        num_images: int | None = None,
        batch_size: int = 64,
        split: Split = "val",
    ) -> None:
        check_ratio(mask_ratio)
        check_least("num_images", num_images, 2, "for a standard error")
        check_least("batch_size", batch_size, 1)
        self.mask = mask
        self.mask_ratio = mask_ratio
        self.num_images = num_images
        self.batch_size = batch_size
        self.split: Split = split

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`; the seed is that of the masks."""
        model = load_mae(subject, protocol=self.name)
        part = Part.open(data, self.split)
        losses = torch.cat(list(self._losses(model, part, subject, seed)))
        value, error = ratio(losses, torch.ones_like(losses))
        return Result(self.name, metrics={"loss": value}, standard_errors={"loss": error}, notes=[LEAVES_OUT])

    def _losses(self, model: MAE, part: Part, subject: Subject, seed: int) -> Iterator[Tensor]:
        """The loss of each image, float64 ``[B]``, batch by batch."""
        mask, compute = self.mask or RandomMask(), replace(subject.compute, batch_size=self.batch_size)
        transform, among = eval_transform_of(model.encoder, part.images), first_images(part, self.num_images)
        batches = part_batches(part, transform, compute, "reconstruction", among=among)
        with frozen(model, compute):
            for index, batch in enumerate(batches):
                context = model.context(batch.images.to(compute.device))
                num_masked = num_masked_for(self.mask_ratio, context.num_patches)
                drawn = mask(context, num_masked, generator=fold_in(seed, index))
                patch_loss = model(context, drawn).patch_loss.double().cpu()
                scored = drawn.targets.double().cpu()
                yield (patch_loss * scored).sum(1) / scored.sum(1)
