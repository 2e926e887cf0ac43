"""The MAE training step with each mask, beside transformers' ViTMAE, and the share that a mask has in it.

A step is forward, backward and AdamW with a fresh mask. On a CPU both run in float32. On a GPU ours runs as
our recipes do, compiled under bfloat16 autocast, and transformers as it comes, eager under float16 autocast.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dppmask.bench.arithmetic import Machine, Shape, Work
from dppmask.bench.harness import Row, Timing, is_installed, measure_in_turns
from dppmask.bench.inputs import OURS, STRATEGIES, backend, draw_masks
from dppmask.bench.job import Job
from dppmask.bench.masks import ratio_columns, shape_columns
from dppmask.bench.rivals import transformers_mae
from dppmask.bench.settings import Settings
from dppmask.bench.step_arithmetic import mae_step
from dppmask.errors import UserError
from dppmask.masks import MaskStrategy, num_masked_for
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded
from dppmask.training.optim import adamw

log = logging.getLogger(__name__)

RIVAL = "transformers"


class Mode(NamedTuple):
    """How a step is run.

    Attributes:
        dtype: Of autocast; float32 = none.
        compiled: Whether the model's forward pass is compiled.
    """

    dtype: torch.dtype
    compiled: bool

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def columns(self) -> Row:
        """As part of a row."""
        return {"dtype": str(self.dtype).removeprefix("torch."), "compiled": self.compiled}


MODES = {
    "cpu": {OURS: Mode(torch.float32, compiled=False), RIVAL: Mode(torch.float32, compiled=False)},
    "cuda": {OURS: Mode(torch.bfloat16, compiled=True), RIVAL: Mode(torch.float16, compiled=False)},
}


class Measured(NamedTuple):
    """What one backbone and batch gave.

    Attributes:
        steps: Mask, or transformers, → the whole step.
        masks: Mask → choosing it alone, from the tokens of the same model.
        shape: Of the masks.
    """

    steps: dict[str, Timing]
    masks: dict[str, Timing]
    shape: Shape


def jobs(settings: Settings, machine: Machine) -> Iterator[Job]:
    """One job a backbone and batch."""
    for backbone in settings.backbones:
        for batch in settings.step_batches():
            yield Job(f"{backbone}, batch {batch}", partial(rows_of, backbone, batch, settings, machine))


def rows_of(backbone: str, batch: int, settings: Settings, machine: Machine) -> list[Row]:
    """A row a mask, and one for transformers.

    ``share`` is the time of the mask alone over that of the step with it, ``over_random`` how much longer
    that step takes than the one with random masks, ``ratio`` its time over that of transformers.
    """
    modes = MODES[settings.device.type]
    measured = measure(backbone, batch, settings, modes)
    size, shape = settings.size(backbone), measured.shape
    rows = []
    for name, timing in measured.steps.items():
        who = RIVAL if name == RIVAL else OURS
        work = mae_step(size, batch=batch, num_keep=shape.num_keep, dtype=modes[who].dtype)
        row: Row = {"backbone": backbone} | shape_columns(shape)
        row |= {"mask": "random" if who == RIVAL else name, "implementation": who} | modes[who].columns()
        row |= {"backend": backend(shape, settings.device) if who == OURS else ""}
        row |= timing.columns() | work_columns(work, timing, machine)
        if RIVAL in measured.steps:
            row |= ratio_columns(timing, measured.steps[RIVAL])
        if who == OURS:
            row |= mask_columns(measured.masks[name], timing, measured.steps["random"])
        rows.append(row | {"threads": torch.get_num_threads()})
    return rows


def measure(backbone: str, batch: int, settings: Settings, modes: Mapping[str, Mode]) -> Measured:
    """Time all steps in turns, then all masks in turns."""
    device = settings.device
    with seeded(0, device=device):
        model = settings.model(backbone).to(device)
        rival = build_rival(model, settings.mask_ratio)
        images = torch.randn(batch, 3, *model.encoder.image_size).to(device)
        num_masked = num_masked_for(settings.mask_ratio, model.encoder.num_patches)
        steps = our_steps(model, images, num_masked, modes[OURS])
        if rival is not None:
            steps[RIVAL] = transformers_step(rival.to(device), images, modes[RIVAL])
        step_times = measure_in_turns(
            steps, repeats=settings.rounds, warmup=settings.warmup, limit=3 * settings.limit
        )
    with torch.no_grad(), modes[OURS].autocast(device):
        tokens = model.encoder.embed(images)
    masks = {name: draw_masks(strategy(), tokens, num_masked) for name, strategy in STRATEGIES.items()}
    mask_times = measure_in_turns(
        masks, repeats=settings.rounds, warmup=settings.warmup, limit=settings.limit
    )
    _, num_patches, dim = tokens.shape
    return Measured(step_times, mask_times, Shape(batch, num_patches, num_patches - num_masked, dim))


def our_steps(model: MAE, images: Tensor, num_masked: int, mode: Mode) -> dict[str, Callable[[], object]]:
    """A training step with each mask; they train the same model."""
    if mode.compiled:
        model.compile()
    optimizer = adamw(model, lr=1e-4, weight_decay=0.05)
    return {
        name: partial(our_step, model, optimizer, images, strategy(), num_masked, mode, fold_in(1))
        for name, strategy in STRATEGIES.items()
    }


def our_step(
    model: MAE,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    strategy: MaskStrategy,
    num_masked: int,
    mode: Mode,
    generator: torch.Generator,
) -> None:
    """One training step, the first."""
    optimizer.zero_grad()
    model.needs_attention = "attention" in strategy.needs
    with mode.autocast(images.device):
        context = model.context(images)
        mask = strategy(context, num_masked, generator=generator)
        loss = model(context, mask).loss
    loss.backward()
    optimizer.step()
    model.after_step(progress=0.0)


def build_rival(model: MAE, mask_ratio: float) -> nn.Module | None:
    """Transformers' model in training mode; None, and a message, where there is none to compare with."""
    if not is_installed(RIVAL):
        return None
    try:
        return transformers_mae(model, mask_ratio).train()
    except UserError as error:
        log.warning("%s; its row is left out", error)
        return None


def transformers_step(model: nn.Module, images: Tensor, mode: Mode) -> Callable[[], object]:
    """One training step of the rival, with the same optimiser."""
    optimizer = adamw(model, lr=1e-4, weight_decay=0.05)
    scaler = torch.amp.GradScaler(images.device.type, enabled=mode.dtype == torch.float16)

    def step() -> None:
        optimizer.zero_grad()
        with mode.autocast(images.device):
            loss = model(images).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def work_columns(work: Work, timing: Timing, machine: Machine) -> Row:
    """What the step asks for, what it reaches a second, and the share of what large matrix products reach."""
    rate = work.flops / timing.median
    return work.columns() | {
        "tflops": float(f"{rate / 1e12:.4g}"),
        "matmul_share": round(rate / machine.rates[work.dtype], 3),
    }


def mask_columns(mask: Timing, step: Timing, random_step: Timing) -> Row:
    """What the mask costs in its step; on a machine that does other work, ``cpu_share`` is the steadier."""
    return {
        "mask_ms": mask.columns()["median_ms"],
        "mask_low_ms": mask.columns()["low_ms"],
        "mask_high_ms": mask.columns()["high_ms"],
        "share": round(mask.median / step.median, 5),
        "cpu_share": round(mask.cpu / max(step.cpu, 1e-9), 5),
        "over_random": round(step.median / random_step.median - 1, 4),
    }
