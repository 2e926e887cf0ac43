"""What each mask needs beyond random masks, as a protocol: the paper's Appendix D, counted and timed.

Networks and weights are counted where they are kept, passes by watching the encoders during one step.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from dppmask.bench import ibot_step
from dppmask.bench.harness import measure_in_turns
from dppmask.bench.inputs import OURS
from dppmask.bench.step import MODES, Mode, our_step
from dppmask.bench.step_time import SYNTHETIC
from dppmask.data.base import ImageSource
from dppmask.errors import UserError
from dppmask.evaluation.base import Protocol, Result, Subject, check_least
from dppmask.evaluation.strategies import label_of
from dppmask.masks import AttMask, BlockMask, DPPMask, KDPPMask, MaskStrategy, RandomMask, num_masked_for
from dppmask.masks.base import Tokens, check_ratio
from dppmask.models.base import MaskedImageModel
from dppmask.models.ema import EMA, FrozenTeacher
from dppmask.models.encoder import Encoder, Position
from dppmask.models.ibot import IBOT
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded
from dppmask.training.optim import adamw

OTHERS: tuple[Callable[[], MaskStrategy], ...] = (
    BlockMask,
    DPPMask,
    partial(DPPMask, source="teacher"),
    KDPPMask,
    AttMask,
)


class Trial(NamedTuple):
    """A method with one mask.

    Attributes:
        model: The method; masks that need the same parts share one.
        strategy: The mask.
        step: A training step of both.
    """

    model: MaskedImageModel
    strategy: MaskStrategy
    step: Callable[[], None]


class MaskCost(Protocol):
    """What MAE and iBOT need with each mask beyond random masks; reads neither data nor encoder.

    Metrics:

    - "{mask}/learned_networks": networks of the mask that are trained with the method.
    - "{mask}/earlier_networks": networks that must have been trained before, the mask's and MAE's teacher.
    - "{mask}/{method}_extra_passes": how often a step sends a whole image through an encoder, a student's or
      a teacher's, for each image of the batch, minus that of random masks. A masked image counts with its
      share of tokens.
    - "{mask}/{method}_extra_weights": numbers that are stored beyond those with random masks, over those of
      the encoder.

    The timings are "{mask}/{method}_seconds", the median of a training step, and
    "{mask}/{method}_over_random", its ratio to random masks; all masks of a method are timed in turns.
    ``method`` is "mae" or "ibot".

    Args:
        masks: Beside RandomMask; None = one of each kind.
        backbone: A timm ``VisionTransformer`` by name.
        backbone_args: Further arguments of it.
        image_size: Side of the images in pixels.
        patch_size: Side of a patch in pixels.
        batch_size: Images per step.
        mask_ratio: Share of hidden patches in MAE; iBOT draws its own.
        teacher: MAE's, for masks that read one: "ema" or an encoder that was trained before.
        mae: Further arguments of MAE.
        ibot: Further arguments of IBOT.
        repeats: Timings of each step.

    Raises:
        UserError: If an argument is outside its range, or a mask does not hide exactly what it is asked to.
    """

    timed = True

    def __init__(
        self,
        masks: Sequence[MaskStrategy] | None = None,
        backbone: str = "vit_small_patch16_224",
        backbone_args: Mapping[str, Any] | None = None,
        image_size: int = 224,
        patch_size: int = 16,
        batch_size: int = 64,
        mask_ratio: float = 0.75,
        teacher: str = EMA,
        mae: Mapping[str, Any] | None = None,
        ibot: Mapping[str, Any] | None = None,
        repeats: int = 20,
    ) -> None:
        check_ratio(mask_ratio)
        check_least("batch_size", batch_size, 1)
        check_least("repeats", repeats, 1)
        for mask in masks or ():
            if not mask.exact:
                raise UserError(f"MAE needs equal numbers of patches, not {label_of(mask)}; use exact=True")
        self.masks = None if masks is None else tuple(masks)
        self.backbone = backbone
        self.backbone_args = backbone_args
        self.image_size = image_size
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.mask_ratio = mask_ratio
        self.teacher = teacher
        self.mae = mae
        self.ibot = ibot
        self.repeats = repeats

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`; the seed is that of everything."""
        device = torch.device(subject.compute.device)
        mode = MODES[device.type][OURS]
        others = [make() for make in OTHERS] if self.masks is None else self.masks
        strategies = {label_of(mask): mask.to(device) for mask in (RandomMask(), *others)}
        metrics: dict[str, float] = {}
        timings: dict[str, float] = {}
        for method, make in {"mae": self._mae_trials, "ibot": self._ibot_trials}.items():
            with seeded(seed, device=device):
                trials = make(strategies, device, mode, seed)
                metrics |= _networks(trials) if method == "mae" else {}
                metrics |= _beyond_random(trials, method, self.batch_size)
                timings |= _times(trials, method, mode, self.repeats)
        return Result(self.name, metrics=metrics, timings=timings, notes=[SYNTHETIC])

    def _mae_trials(
        self, strategies: Mapping[str, MaskStrategy], device: torch.device, mode: Mode, seed: int
    ) -> dict[str, Trial]:
        """MAE has a teacher only for masks that read one."""

        def build(teacher: str | None) -> tuple[MAE, torch.optim.Optimizer]:
            model = MAE(self._encoder("sincos"), teacher=teacher, **(self.mae or {})).to(device)
            return model, adamw(model, lr=1e-4, weight_decay=0.05)

        models: dict[bool, tuple[MAE, torch.optim.Optimizer]] = {}
        trials = {}
        for label, mask in strategies.items():
            is_taught = bool(mask.needs - MAE.provides)
            if is_taught not in models:
                models[is_taught] = build(self.teacher if is_taught else None)
            model, optimizer = models[is_taught]
            images = torch.randn(self.batch_size, 3, *model.encoder.image_size).to(device)
            num_masked = num_masked_for(self.mask_ratio, model.encoder.num_patches)
            step = partial(our_step, model, optimizer, images, mask, num_masked, mode, fold_in(seed))
            trials[label] = Trial(model, mask, step)
        return trials

    def _ibot_trials(
        self, strategies: Mapping[str, MaskStrategy], device: torch.device, mode: Mode, seed: int
    ) -> dict[str, Trial]:
        model = IBOT(self._encoder("learned"), **(self.ibot or {})).to(device)
        views = ibot_step.random_views(model, self.batch_size, device)
        optimizer = adamw(model, lr=1e-4, weight_decay=0.04)
        return {
            label: Trial(
                model, mask, partial(ibot_step.step, model, optimizer, views, mask, mode, fold_in(seed))
            )
            for label, mask in strategies.items()
        }

    def _encoder(self, position: Position) -> Encoder:
        return Encoder(
            self.backbone,
            image_size=self.image_size,
            patch_size=self.patch_size,
            position=position,
            backbone_args=self.backbone_args,
        )


def encoder_passes(model: nn.Module, step: Callable[[], object]) -> float:
    """How many whole images one step sends through the encoders of a model.

    An image of which some patches are dropped, or a smaller crop, counts with its share of tokens.
    """
    images = 0.0

    def count(encoder: Any, arguments: tuple[Any, ...], output: Tokens) -> None:
        nonlocal images
        tokens = output.prefix.shape[1] + output.patches.shape[1]
        images += output.patches.shape[0] * tokens / (encoder.num_prefix + encoder.num_patches)

    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    handles = [encoder.register_forward_hook(count) for encoder in encoders]
    try:
        step()
    finally:
        for handle in handles:
            handle.remove()
    return images


def num_networks(strategy: MaskStrategy, *, learned: bool) -> int:
    """How many parts of a mask have weights that are trained with the method, or that are not."""
    weights = strategy.named_parameters()
    return len({name.partition(".")[0] for name, weight in weights if weight.requires_grad == learned})


def num_weights(trial: Trial) -> int:
    """Numbers that a method and its mask store as parameters, trained or not."""
    return sum(p.numel() for part in (trial.model, trial.strategy) for p in part.parameters())


def _networks(trials: Mapping[str, Trial]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for label, trial in trials.items():
        frozen = sum(isinstance(module, FrozenTeacher) for module in trial.model.modules())
        earlier = frozen + num_networks(trial.strategy, learned=False)
        metrics[f"{label}/learned_networks"] = num_networks(trial.strategy, learned=True)
        metrics[f"{label}/earlier_networks"] = earlier
    return metrics


def _beyond_random(trials: Mapping[str, Trial], method: str, batch_size: int) -> dict[str, float]:
    passes = {label: encoder_passes(trial.model, trial.step) for label, trial in trials.items()}
    weights = {label: num_weights(trial) for label, trial in trials.items()}
    random = label_of(RandomMask())
    of_encoder = sum(p.numel() for p in trials[random].model.encoder.parameters())
    metrics: dict[str, float] = {}
    for label in trials:
        metrics[f"{label}/{method}_extra_passes"] = (passes[label] - passes[random]) / batch_size
        metrics[f"{label}/{method}_extra_weights"] = (weights[label] - weights[random]) / of_encoder
    return metrics


def _times(trials: Mapping[str, Trial], method: str, mode: Mode, repeats: int) -> dict[str, float]:
    if mode.compiled:
        for model in {id(trial.model): trial.model for trial in trials.values()}.values():
            model.compile()
    measured = measure_in_turns({label: trial.step for label, trial in trials.items()}, repeats=repeats)
    random = measured[label_of(RandomMask())].median
    return {
        name: seconds
        for label, timing in measured.items()
        for name, seconds in {
            f"{label}/{method}_seconds": timing.median,
            f"{label}/{method}_over_random": timing.median / random,
        }.items()
    }
