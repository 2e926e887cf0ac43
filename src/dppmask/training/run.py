"""``pretrain``: from a source of images to a run folder with a pre-trained encoder."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from dppmask.data.base import ImageSource
from dppmask.data.module import TrainLoader, Transform
from dppmask.data.multi_crop import MultiCropTransform
from dppmask.data.transforms import train_transform
from dppmask.errors import UserError
from dppmask.masks.base import MaskRatio, MaskStrategy
from dppmask.masks.uniform import RandomMask
from dppmask.models.base import MaskedImageModel
from dppmask.models.build import build_model
from dppmask.models.checkpoint import init_weights, save_encoder
from dppmask.models.encoder import Encoder, Position
from dppmask.models.mae import MAE
from dppmask.rng import seeded
from dppmask.specs import build
from dppmask.training import settings
from dppmask.training.callbacks import read_metrics
from dppmask.training.checkpoints import newest
from dppmask.training.fitting import CHECKPOINTS, METRICS, fit
from dppmask.training.module import Pretraining
from dppmask.training.schedule import Schedule, scaled_learning_rate
from dppmask.training.stopping import requeued
from dppmask.training.trainer import is_first_process


@dataclass(frozen=True)
class RunResult:
    """What a training left.

    Attributes:
        path: The run folder.
        metrics: The last line of ``metrics.jsonl``.
        finished: False if a signal stopped it early; ``resume=True`` goes on.
    """

    path: Path
    metrics: dict[str, float]
    finished: bool


@settings.told_what_is_given
def pretrain(
    *,
    run: str | Path,
    data: ImageSource | Mapping[str, Any] | None = None,
    method: type[MaskedImageModel] | partial[MaskedImageModel] | Mapping[str, Any] = MAE,
    mask: MaskStrategy | Mapping[str, Any] | None = None,
    mask_ratio: float | tuple[float, float] = 0.75,
    mask_probability: float = 1.0,
    backbone: str = "vit_small_patch16_224",
    image_size: int | tuple[int, int] = 224,
    patch_size: int = 16,
    position: Position = "sincos",
    backbone_args: Mapping[str, Any] | None = None,
    epochs: int = 400,
    batch_size: int = 256,
    base_lr: float = 1.5e-4,
    min_lr: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.05,
    weight_decay_end: float | None = None,
    clip_grad: float | None = None,
    warmup_epochs: float | None = None,
    crop_scale: tuple[float, float] = (0.2, 1.0),
    accumulate: int = 1,
    seed: int = 0,
    num_workers: int = 2,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    compile: bool = False,
    deterministic: bool = False,
    ema: float | None = None,
    save_every: int = 20,
    save_last_every: int = 200,
    log_every: int = 10,
    resume: bool = False,
    init_from: str | Path | None = None,
    loggers: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    given: Collection[str] = (),
) -> RunResult:
    """Pre-train an encoder by masked image modelling.

    Every argument but ``resume`` and ``callbacks`` is written to ``config.yaml`` in the run folder. The same
    arguments give the same weights, bit for bit on a CPU, however often the run was interrupted.

    Args:
        run: The run folder; must not exist yet, or be empty, unless ``resume`` is set.
        data: Where images come from, or its spec. None only together with ``resume``.
        method: A method class, a partial call of one, or a spec; its first argument is the encoder.
        mask: The strategy that chooses masks, or its spec; uniformly random by default.
        mask_ratio: Share of hidden patches, or (low, high) to draw from: per image where rows may differ.
        mask_probability: Chance that an image is masked at all.
        backbone: A timm ``VisionTransformer`` by name.
        image_size: Side of the crops in pixels, or (height, width).
        patch_size: Side of a patch in pixels.
        position: "sincos" = a fixed table of positions, as in MAE; "learned" = a trained one, as in iBOT.
        backbone_args: Further arguments of the timm model: depth, embed_dim, drop_path_rate, ….
        epochs: Passes over the data.
        batch_size: Images per device and micro-batch. Effective: x devices x num_nodes x accumulate.
        base_lr: Learning rate for an effective batch of 256; scaled linearly.
        min_lr: Where the learning rate ends, not scaled.
        betas: Momenta of AdamW.
        weight_decay: Of matrices; biases and 1-D parameters have none.
        weight_decay_end: Where the weight decay ends, on half a cosine; constant by default.
        clip_grad: Largest norm of the gradient of each parameter tensor by itself; none by default.
        warmup_epochs: Length of the linear warm-up; a tenth of the training by default (MAE: 40 of 400).
        crop_scale: Smallest and largest share of an image that a random (global) crop covers.
        accumulate: Micro-batches per optimiser step.
        seed: The one seed of everything random.
        num_workers: Loader processes; changes nothing but the speed.
        precision: "32-true", "bf16-mixed" or "16-mixed".
        accelerator: "auto", "cpu", "gpu", … as Lightning names them.
        devices: Devices per node.
        num_nodes: Nodes.
        strategy: "auto", "ddp" or "fsdp2".
        compile: Compile the method's forward pass.
        deterministic: Use deterministic kernels only (GPU); slower.
        ema: Decay of an exponential moving average of the weights, which is then what is exported.
        save_every: Epochs between two kept checkpoints; 0 keeps none.
        save_last_every: Optimiser steps between two versions of ``last.ckpt``.
        log_every: Optimiser steps between two lines of ``metrics.jsonl``.
        resume: Go on with this run where it was interrupted. Options that are not given are the stored ones.
        init_from: Weights to start from: a timm name or file, an official MAE checkpoint, another run.
        loggers: "tensorboard", "wandb"; ``metrics.jsonl`` is always written.
        callbacks: Further Lightning callbacks.
        given: Filled in by the decorator: names of the arguments of this call.

    Raises:
        UserError: If an option is wrong, the run exists already or cannot go on, the disk is full, or the
            loss becomes NaN or infinite.
    """
    options = dict(locals())
    run, resume = Path(run), resume or requeued()
    if not resume:
        _refuse_existing(run)
    config = _config(run, options, given, resume=resume)
    checkpoint = newest(run / CHECKPOINTS) if resume else None
    finished = fit(
        run,
        config,
        partial(_module, config, fresh=checkpoint is None),
        partial(_export, config, run / "encoder"),
        callbacks=callbacks,
        checkpoint=checkpoint,
    )
    lines = read_metrics(run / METRICS)
    return RunResult(run, lines[-1] if lines else {}, finished)


def _refuse_existing(run: Path) -> None:
    empty = run.is_dir() and not any(run.iterdir())
    if is_first_process() and run.exists() and not empty:
        raise UserError(f"run {run} exists already; go on with it by resume, or choose another name")


def _config(run: Path, options: Mapping[str, Any], given: Collection[str], *, resume: bool) -> dict[str, Any]:
    """The options as plain data; when a run goes on, completed from what it stored and compared with it."""
    config = settings.plain(_with_defaults(options))
    old = settings.stored(run) if resume else None
    if old is not None:
        nothing_said = {"data"} if config["data"] is None else set()
        config = settings.completed(config, set(given) - nothing_said, old)
        settings.check_same(old, config, run)
    if config["data"] is None:
        raise UserError(f"data must be given: {run} has no {settings.CONFIG} to take it from")
    settings.check_numbers(config)
    return config


def _with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **options,
        "mask": options["mask"] or RandomMask(),
        "backbone_args": options["backbone_args"] or {},
    }


def _module(config: Mapping[str, Any], trainer: Trainer, *, fresh: bool) -> Pretraining:
    """Everything that is trained, checked to fit together."""
    with seeded(config["seed"]):
        model = build_model(config)
    model.check_epochs(config["epochs"])
    if fresh:
        if config["init_from"] is not None:
            init_weights(model, config["init_from"])
        model.before_training()
    if config["compile"]:
        model.compile()
    strategy, ratio = build(config["mask"]), ratio_of(config)
    check_needs(model, strategy, ratio)
    source = build(config["data"]).split("train")
    loader = partial(
        TrainLoader,
        source,
        transform_of(config, model),
        batch_size=config["batch_size"],
        seed=config["seed"],
        num_workers=config["num_workers"],
        accumulate=config["accumulate"],
    )
    schedule = _schedule(config, len(source), trainer.world_size)
    module = Pretraining(
        model,
        strategy,
        ratio,
        schedule,
        seed=config["seed"],
        loader=loader,
        betas=_pair(config["betas"]),
        clip_grad=config["clip_grad"],
    )
    module.try_masks()
    return module


def transform_of(config: Mapping[str, Any], model: MaskedImageModel) -> Transform:
    """The augmentation of a run: one crop of each image, or as many as its method wants.

    Args:
        config: The options of the run as plain data.
        model: Its method.
    """
    image_size, scale = _pair(config["image_size"]), _pair(config["crop_scale"])
    if model.multi_crop is None:
        return train_transform(image_size, scale=scale)
    return MultiCropTransform(image_size, model.multi_crop, scale=scale)


def ratio_of(config: Mapping[str, Any]) -> MaskRatio:
    """How many patches a run hides.

    Args:
        config: The options of the run as plain data.

    Raises:
        UserError: If the mask ratio or the mask probability is outside its range.
    """
    try:
        return MaskRatio(_pair(config["mask_ratio"]), probability=config["mask_probability"])
    except ValueError as error:
        raise UserError(str(error)) from None


def _pair(value: Any) -> Any:
    """A pair as the tuple it was before it went through YAML; a number as it is."""
    return tuple(value) if isinstance(value, list) else value


def check_needs(model: MaskedImageModel, strategy: MaskStrategy, ratio: MaskRatio) -> None:
    """Refuse a strategy that reads what the method cannot offer, and unequal counts where they must be equal.

    Raises:
        UserError: Naming the method, the strategy and what is missing.
    """
    method, mask = type(model).__name__, type(strategy).__name__
    if missing := strategy.needs - model.provides:
        raise UserError(
            f"mask {mask} reads {', '.join(sorted(missing))}, which method {method} does not provide; "
            f"it provides {', '.join(sorted(model.provides))}"
        )
    if model.needs_equal_counts and not strategy.exact:
        raise UserError(
            f"mask {mask} with exact=False hides more patches of one image than of another, which method "
            f"{method} cannot take; use exact=True"
        )
    if model.needs_equal_counts and ratio.probability < 1.0:
        raise UserError(
            f"mask_probability must be 1 with method {method}, which hides equally many patches of every "
            f"image, got {ratio.probability}"
        )


def _schedule(config: Mapping[str, Any], num_images: int, world_size: int) -> Schedule:
    images_per_step = config["batch_size"] * world_size * config["accumulate"]
    steps_per_epoch = num_images // images_per_step
    if steps_per_epoch == 0:
        raise UserError(
            f"batch_size {config['batch_size']} x {world_size} devices x accumulate {config['accumulate']} = "
            f"{images_per_step} images a step, but the data has {num_images}; lower batch_size or accumulate"
        )
    epochs, warmup = config["epochs"], config["warmup_epochs"]
    warmup = epochs / 10 if warmup is None else warmup
    if not 0 <= warmup <= epochs:
        raise UserError(f"warmup_epochs must be between 0 and epochs ({epochs}), got {warmup}")
    return Schedule(
        lr=scaled_learning_rate(config["base_lr"], images_per_step),
        weight_decay=config["weight_decay"],
        warmup_steps=round(warmup * steps_per_epoch),
        total_steps=epochs * steps_per_epoch,
        images_per_step=images_per_step,
        min_lr=config["min_lr"],
        weight_decay_end=config["weight_decay_end"],
    )


def _export(
    config: Mapping[str, Any], folder: Path, trainer: Trainer, averaged: Mapping[str, Tensor]
) -> None:
    """Write the encoder to keep alone, with averaged weights where there are any."""
    weights = trainer.strategy.lightning_module_state_dict()  # collective where weights are sharded
    if trainer.is_global_zero:
        with seeded(config["seed"]):
            model = build_model(config)
        own = {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
        model.load_state_dict(own | dict(averaged))
        save_encoder(cast(Encoder, model.get_submodule(model.exported)), folder)
