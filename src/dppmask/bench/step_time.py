"""Seconds per training step with each mask, as a protocol: Table 9 among the other evaluations."""

from collections.abc import Sequence
from functools import partial

import torch

from dppmask.bench.harness import measure_in_turns
from dppmask.bench.inputs import OURS
from dppmask.bench.step import MODES, our_step
from dppmask.data.base import ImageSource
from dppmask.evaluation.base import Protocol, Result, Subject, check_least
from dppmask.evaluation.strategies import label_of
from dppmask.masks import DPPMask, KDPPMask, MaskStrategy, RandomMask, num_masked_for
from dppmask.masks.base import check_ratio
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded
from dppmask.training.optim import adamw

SYNTHETIC = "images are noise that lies on the device already: no loading is timed"


class StepTime(Protocol):
    """Seconds of a training step of MAE with each mask, timed in turns; reads neither data nor encoder.

    The timings are "{mask}/seconds", the median, and "{mask}/over_random", its ratio to random masks.

    Args:
        masks: Beside RandomMask; None = DPPMask and KDPPMask.
        backbone: A timm ``VisionTransformer`` by name.
        image_size: Side of the images in pixels.
        patch_size: Side of a patch in pixels.
        batch_size: Images per step.
        mask_ratio: Share of hidden patches.
        repeats: Timings of each step.

    Raises:
        UserError: If an argument is outside its range.
    """

    timed = True

    def __init__(
        self,
        masks: Sequence[MaskStrategy] | None = None,
        backbone: str = "vit_base_patch16_224",
        image_size: int = 224,
        patch_size: int = 16,
        batch_size: int = 256,
        mask_ratio: float = 0.75,
        repeats: int = 20,
    ) -> None:
        check_ratio(mask_ratio)
        check_least("batch_size", batch_size, 1)
        check_least("repeats", repeats, 1)
        self.masks = None if masks is None else tuple(masks)
        self.backbone = backbone
        self.image_size = image_size
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.mask_ratio = mask_ratio
        self.repeats = repeats

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`; the seed is that of everything."""
        device = torch.device(subject.compute.device)
        mode = MODES[device.type][OURS]
        others = (DPPMask(), KDPPMask()) if self.masks is None else self.masks
        strategies = {label_of(mask): mask for mask in (RandomMask(), *others)}
        with seeded(seed, device=device):
            encoder = Encoder(self.backbone, image_size=self.image_size, patch_size=self.patch_size)
            model = MAE(encoder).to(device)
            if mode.compiled:
                model.compile()
            images = torch.randn(self.batch_size, 3, *encoder.image_size).to(device)
            optimizer = adamw(model, lr=1e-4, weight_decay=0.05)
            num_masked = num_masked_for(self.mask_ratio, encoder.num_patches)
            steps = {
                label: partial(our_step, model, optimizer, images, mask, num_masked, mode, fold_in(seed))
                for label, mask in strategies.items()
            }
            times = {
                label: timing.median
                for label, timing in measure_in_turns(steps, repeats=self.repeats).items()
            }
        timings = {f"{label}/seconds": seconds for label, seconds in times.items()}
        random = times[label_of(RandomMask())]
        timings |= {f"{label}/over_random": seconds / random for label, seconds in times.items()}
        return Result(self.name, metrics={}, timings=timings, notes=[SYNTHETIC])
