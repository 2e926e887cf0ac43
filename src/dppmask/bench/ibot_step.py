"""The iBOT training step with each mask, and the share that a mask has in it.

A step is the teacher's pass, the student's over global and local crops, backward, AdamW and the moving
average, with fresh masks as in iBOT's recipe: half of the global crops stay whole, of the others 10 to 50 %
is hidden. What a mask reads of the teacher comes with the targets and is no part of its share; AttMask's
attention, worked out beside the teacher's last block, shows in the step alone.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import torch

from dppmask.bench.arithmetic import Shape
from dppmask.bench.harness import Row, Timing, measure_in_turns
from dppmask.bench.inputs import OURS, backend
from dppmask.bench.job import Job
from dppmask.bench.settings import Settings
from dppmask.bench.step import MODES, Mode, mask_columns
from dppmask.masks import (
    AttMask,
    BlockMask,
    DPPMask,
    KDPPMask,
    Mask,
    MaskContext,
    MaskRatio,
    MaskStrategy,
    RandomMask,
)
from dppmask.models.ibot import IBOT
from dppmask.rng import fold_in, seeded
from dppmask.training.optim import adamw, clip_each_gradient
from dppmask.views import MultiCrop, Views

# "greedy" purges nothing, which is the dearest case; "purged" is what users get.
STRATEGIES: dict[str, Callable[[], MaskStrategy]] = {
    "random": RandomMask,
    "block": BlockMask,
    "attention, high": AttMask,
    "attention, hint": partial(AttMask, "hint"),
    "purged": partial(DPPMask, source="teacher"),
    "greedy": partial(DPPMask, purge_ratio=0.0, source="teacher"),
    "exact": partial(KDPPMask, source="teacher"),
}
RATIO = MaskRatio((0.1, 0.5), probability=0.5)
CLIP_GRAD = 3.0


def jobs(settings: Settings) -> Iterator[Job]:
    """One job a backbone and batch."""
    for backbone in settings.backbones:
        for batch in settings.ibot_batches():
            yield Job(f"iBOT {backbone}, batch {batch}", partial(rows_of, backbone, batch, settings))


def rows_of(backbone: str, batch: int, settings: Settings) -> list[Row]:
    """A row a mask; ``share``, ``cpu_share`` and ``over_random`` as for MAE."""
    mode = MODES[settings.device.type][OURS]
    with seeded(0, device=settings.device):
        model = settings.ibot(backbone).to(settings.device)
        views = random_views(model, batch, settings.device)
        steps, masks = measure(model, views, settings, mode)
    crops, num_patches, dim = len(views.global_crops), model.encoder.num_patches, model.encoder.embed_dim
    shape = Shape(crops, num_patches, num_patches, dim)
    return [
        {"backbone": backbone, "batch": batch, "crops": crops, "num_patches": num_patches, "feature_dim": dim}
        | {"mask": name, "implementation": OURS, **mode.columns()}
        | {"backend": backend(shape, settings.device), **timing.columns()}
        | mask_columns(masks[name], timing, steps["random"])
        | {"threads": torch.get_num_threads()}
        for name, timing in steps.items()
    ]


def random_views(model: IBOT, batch: int, device: torch.device) -> Views:
    """Noise in the shape of a batch."""
    crops = cast(MultiCrop, model.multi_crop)
    height, width = model.encoder.image_size
    side = crops.local_size
    return Views(
        torch.randn(crops.num_global * batch, 3, height, width).to(device),
        torch.randn(crops.num_local * batch, 3, side, side).to(device) if crops.num_local else None,
        crops.num_global,
        crops.num_local,
    )


def measure(
    model: IBOT, views: Views, settings: Settings, mode: Mode
) -> tuple[dict[str, Timing], dict[str, Timing]]:
    """Time all steps in turns, then all masks in turns, chosen from what the same model's teacher says."""
    if mode.compiled:
        model.compile()
    optimizer = adamw(model, lr=1e-4, weight_decay=0.04)
    steps = {
        name: partial(step, model, optimizer, views, strategy(), mode, fold_in(1))
        for name, strategy in STRATEGIES.items()
    }
    step_times = measure_in_turns(steps, repeats=settings.rounds, warmup=1, limit=3 * settings.limit)
    model.needs_attention = True
    context = model.context(views)
    with torch.no_grad(), mode.autocast(settings.device):
        _ = context.teacher
    masks = {name: partial(draw, strategy(), context, fold_in(1)) for name, strategy in STRATEGIES.items()}
    mask_times = measure_in_turns(
        masks, repeats=settings.rounds, warmup=settings.warmup, limit=settings.limit
    )
    return step_times, mask_times


def draw(strategy: MaskStrategy, context: MaskContext, generator: torch.Generator) -> Mask:
    """Counts and masks of a batch, as the trainer draws them."""
    counts = RATIO.draw_per_image(context.batch_size, context.num_patches, generator=generator)
    return strategy(context, counts.to(context.device), generator=generator)


def step(
    model: IBOT,
    optimizer: torch.optim.Optimizer,
    views: Views,
    strategy: MaskStrategy,
    mode: Mode,
    generator: torch.Generator,
) -> None:
    """One training step, in the first epoch: the prototypes rest."""
    optimizer.zero_grad()
    model.needs_attention = "attention" in strategy.needs
    with mode.autocast(views.global_crops.device):
        context = model.context(views)
        loss = model(context, draw(strategy, context, generator)).loss
    loss.backward()
    model.before_step(epoch=0)
    clip_each_gradient(model, CLIP_GRAD)
    optimizer.step()
    model.after_step(progress=0.0)
