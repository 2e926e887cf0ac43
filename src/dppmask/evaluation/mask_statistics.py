"""What masks do to images before any training: objects lost, diversity, spread, overlap, cost."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, get_args

import torch
from torch import Tensor

from dppmask import specs
from dppmask.data.base import ImageSource, Split
from dppmask.errors import UserError
from dppmask.evaluation import mask_measures as measures
from dppmask.evaluation.base import Part, Protocol, Result, Subject, check_least
from dppmask.evaluation.mask_batches import MeasuredBatch, PatchView, measured_batches
from dppmask.evaluation.mask_measures import Found, PatchObjects, beside_random, ratio
from dppmask.evaluation.shown_masks import shown_masks
from dppmask.evaluation.strategies import check_known, compared_strategies, default_source, open_several
from dppmask.masks import DPPMask, Mask, MaskContext, MaskStrategy, PurgeSchedule, num_masked_for
from dppmask.masks.base import check_ratio
from dppmask.masks.features import Source, read_features
from dppmask.rng import fold_in

NO_OBJECTS = (
    "objects: this source does not say where objects are, so visible_share and objects_lost are left out"
)


class MaskStatistics(Protocol):
    """Compare mask strategies on the same images and the same noise, with standard errors over images.

    Statistics, each under ``strategy/statistic``:

    - ``visible_share``: mean share of an object's pixels on visible patches. - ``objects_lost``: share of
    objects of which less than 5 % is visible. - ``greedy_picks``: visible patches picked for their gain
    (strategies with a purge ratio only). - ``log_det``: log-determinant of the Gaussian kernel on the visible
    patches, the same kernel for all strategies. - ``spread``: mean distance between visible patches, 1 for
    random masks. - ``overlap``: share of visible patches that a second mask of the same image shows as well.

    :class:`~dppmask.masks.uniform.RandomMask` always takes part, and the table "statistics" holds every
    strategy's difference to it, paired by image. Strategies that read a teacher get the encoder itself as
    one, and those that change over the training are drawn as in its middle.

    Args:
        masks: Strategies; None = RandomMask and DPPMask.
        mask_ratio: Share of hidden patches.
        num_masks: Masks per image, at least 2.
        num_images: How many images at most; None = all.
        batch_size: Images that share a mask's cost, and its draw of noise.
        split: Which part of the data.
        kernel_source: What the kernel of ``log_det`` compares: "tokens", "pixels" or "teacher"; None =
            tokens, or pixels where there is no encoder.
        bandwidth: σ of that kernel.
        image_size: Where there is no encoder: side of the images.
        patch_size: Where there is no encoder: side of a patch.
        num_shown: How many images, from the first on, the table "shown" holds with a mask of every strategy;
            see :func:`~dppmask.evaluation.shown_masks.shown_masks`.

    Raises:
        UserError: If an argument is outside its range.
    """

    scenes = "multi"

    def __init__(
        self,
        masks: Sequence[MaskStrategy] | None = None,
        mask_ratio: float = 0.75,
        num_masks: int = 2,
        num_images: int | None = None,
        batch_size: int = 64,
        split: Split = "val",
        kernel_source: Source | None = None,
        bandwidth: float = 1.0,
        image_size: int = 224,
        patch_size: int = 16,
        num_shown: int = 0,
    ) -> None:
        check_ratio(mask_ratio)
        check_least("num_masks", num_masks, 2, "to compare masks of one image")
        check_least("num_images", num_images, 2, "for a standard error")
        check_least("batch_size", batch_size, 1)
        if kernel_source is not None and kernel_source not in get_args(Source):
            sources = ", ".join(get_args(Source))
            raise UserError(f"kernel_source must be one of {sources}, got {kernel_source!r}")
        if not 0.0 < bandwidth < math.inf:
            raise UserError(f"bandwidth must be positive and finite, got {bandwidth}")
        if patch_size < 1:
            raise UserError(f"patch_size must be at least 1, got {patch_size}")
        if image_size < 1 or image_size % patch_size:
            raise UserError(f"image_size must be a multiple of patch_size {patch_size}, got {image_size}")
        if not 0 <= num_shown <= batch_size:
            raise UserError(f"num_shown must be in [0, {batch_size}], the batch_size, got {num_shown}")
        self.masks = None if masks is None else tuple(masks)
        self.mask_ratio = mask_ratio
        self.num_masks = num_masks
        self.num_images = num_images
        self.batch_size = batch_size
        self.split: Split = split
        self.kernel_source = kernel_source
        self.bandwidth = bandwidth
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_shown = num_shown

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`; the seed is that of the masks."""
        part = open_several(data, self.split, protocol=self.name)
        strategies = self._strategies(subject)
        kernel_source = self.kernel_source or default_source(subject)
        tallies = {label: Tally() for label in strategies}
        needs = frozenset().union(*(strategy.needs for strategy in strategies.values()))
        view = self._view(part, subject)
        shown: list[dict[str, Any]] = []
        for index, batch in enumerate(self._batches(part, view, subject, needs)):
            num_masked = num_masked_for(self.mask_ratio, batch.context.num_patches)
            features = read_features(batch.context, kernel_source)
            first: dict[str, Mask] = {}
            for label, strategy in strategies.items():
                masks = []
                for number in range(self.num_masks):
                    generator = fold_in(seed, index, number)  # the same for every strategy
                    mask, milliseconds = timed(strategy, batch.context, num_masked, generator)
                    masks.append(mask)
                    tallies[label].milliseconds.append(milliseconds)
                tallies[label].add(measure(strategy, masks, batch, features, bandwidth=self.bandwidth))
                first[label] = masks[0]
            if index == 0:
                shown = shown_masks(batch, first, view.transform, count=self.num_shown)
        keep_share = 1.0 - num_masked / batch.context.num_patches
        result = summarise(strategies, tallies, keep_share=keep_share)
        return replace(result, tables={**result.tables, "shown": shown}) if shown else result

    def _strategies(self, subject: Subject) -> dict[str, MaskStrategy]:
        """By label, RandomMask first."""
        strategies = compared_strategies(self.masks, subject, protocol=self.name)
        if self.kernel_source not in (None, "pixels"):
            check_known(subject, {"the kernel of log_det": frozenset({self.kernel_source})})
        return strategies

    def _view(self, part: Part, subject: Subject) -> PatchView:
        """As the encoder sees the images, or of the sizes given."""
        if subject.encoder is None:
            return PatchView.square(self.image_size, self.patch_size, part.images)
        return PatchView.of(subject.encoder, part.images)

    def _batches(
        self, part: Part, view: PatchView, subject: Subject, needs: frozenset[str]
    ) -> Iterator[MeasuredBatch]:
        """Batches of this protocol's own size: the noise of a mask depends on it."""
        return measured_batches(
            part,
            replace(subject, compute=replace(subject.compute, batch_size=self.batch_size)),
            view,
            needs=needs,
            count=self.num_images,
        )


def timed(
    strategy: MaskStrategy, context: MaskContext, num_masked: int, generator: torch.Generator
) -> tuple[Mask, float]:
    """A mask and how many milliseconds it took, kernel included, tokens and teacher not."""
    if strategy.needs & {"teacher", "attention"}:
        _ = context.teacher
    wait_for(context.device)
    started = time.perf_counter()
    mask = strategy(context, num_masked, generator=generator)
    wait_for(context.device)
    return mask, 1e3 * (time.perf_counter() - started)


def wait_for(device: torch.device) -> None:
    """Until an accelerator has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    strategy: MaskStrategy, masks: Sequence[Mask], batch: MeasuredBatch, features: Tensor, *, bandwidth: float
) -> Found:
    """Every statistic of several masks of the same images, image by image.

    Args:
        strategy: Whose masks.
        masks: One for each image of the batch, several times.
        batch: The images.
        features: ``[B, N, D]``, what the kernel of ``log_det`` compares.
        bandwidth: σ of that kernel.
    """
    found = {
        "log_det": [measures.log_det(features, mask, bandwidth=bandwidth).cpu() for mask in masks],
        "overlap": [measures.overlap(one, other) for one, other in combinations(masks, 2)],
    }
    if masks[0].ids_keep.shape[1] > 1:
        found["spread"] = [measures.spread(mask, batch.grid) for mask in masks]
    gains = [mask.scores for mask in masks if mask.scores is not None]
    if gains and isinstance(strategy, DPPMask | PurgeSchedule):
        found["greedy_picks"] = [measures.greedy_picks(scores) for scores in gains]
    means = {name: torch.stack(values).mean(0) for name, values in found.items()}
    ones = torch.ones(batch.context.batch_size, dtype=torch.float64)
    return {name: (mean, ones) for name, mean in means.items()} | _object_statistics(masks, batch.objects)


def _object_statistics(masks: Sequence[Mask], objects: PatchObjects | None) -> Found:
    if objects is None:
        return {}
    shares = torch.stack([objects.visible_share(mask) for mask in masks])  # [masks, O]
    counts = objects.per_image(torch.ones(len(objects.image)))
    lost = (shares < measures.LOST_BELOW).double()
    return {
        "visible_share": (objects.per_image(shares.mean(0)), counts),
        "objects_lost": (objects.per_image(lost.mean(0)), counts),
    }


@dataclass
class Tally:
    """What was found for one strategy so far.

    Attributes:
        found: One entry per batch.
        milliseconds: One entry per mask of a batch.
    """

    found: list[Found] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """One more batch."""
        self.found.append(found)

    def joined(self) -> Found:
        """Over all batches; statistics that not every batch has are left out."""
        joined = {}
        for name in self.found[0]:
            if all(name in batch for batch in self.found):
                numerators, denominators = zip(*(batch[name] for batch in self.found), strict=True)
                joined[name] = torch.cat(numerators), torch.cat(denominators)
        return {name: found for name, found in joined.items() if found[1].sum() > 0}


def summarise(
    strategies: Mapping[str, MaskStrategy], tallies: Mapping[str, Tally], *, keep_share: float
) -> Result:
    """Means, standard errors and differences to random masks.

    Args:
        strategies: By label, RandomMask first.
        tallies: By the same labels.
        keep_share: K / N.
    """
    found = {label: tally.joined() for label, tally in tallies.items()}
    random = found[next(iter(found))]
    rows: list[dict[str, Any]] = [
        {"strategy": label, "statistic": name, **beside_random(values, random.get(name))}
        for label, statistics_ in found.items()
        for name, values in statistics_.items()
    ]
    chance = {"visible_share": keep_share, "overlap": keep_share, "spread": 1.0}
    return Result(
        "MaskStatistics",
        metrics={f"{row['strategy']}/{row['statistic']}": row["value"] for row in rows},
        standard_errors={f"{row['strategy']}/{row['statistic']}": row["standard_error"] for row in rows},
        baselines={
            "chance": {name: value for name, value in chance.items() if name in random},
            "random": {name: ratio(*values)[0] for name, values in random.items()},
        },
        tables={
            "statistics": rows,
            "strategies": [{"strategy": label, **specs.describe(mask)} for label, mask in strategies.items()],
        },
        timings=_timings(tallies),
        notes=[] if "objects_lost" in random else [NO_OBJECTS],
    )


def _timings(tallies: Mapping[str, Tally]) -> dict[str, float]:
    """Median and 20 % / 80 % quantiles of the milliseconds per mask of a batch, without the very first."""
    timings = {}
    for label, tally in tallies.items():
        times = torch.tensor(tally.milliseconds[1:])
        for suffix, share in {"": 0.5, "_q20": 0.2, "_q80": 0.8}.items():
            timings[f"{label}/ms_per_batch{suffix}"] = times.quantile(share).item()
    return timings
