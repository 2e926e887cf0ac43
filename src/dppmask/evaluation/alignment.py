"""How far masks move an image in an encoder's eyes, how far apart they put it, what losing an object adds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from dppmask import specs
from dppmask.data.base import ImageSource, Split
from dppmask.errors import UserError
from dppmask.evaluation.alignment_statistics import Findings
from dppmask.evaluation.base import Protocol, Result, Subject, check_least
from dppmask.evaluation.baselines import RANDOM_ENCODER, random_encoder
from dppmask.evaluation.clouds import clouds
from dppmask.evaluation.features import Pooling, View
from dppmask.evaluation.mask_batches import MeasuredBatch, PatchView, measured_batches
from dppmask.evaluation.mask_grid import MaskGrid
from dppmask.evaluation.representations import Represented
from dppmask.evaluation.strategies import compared_strategies, open_several
from dppmask.masks import MaskStrategy
from dppmask.masks.base import check_ratio
from dppmask.models.encoder import Encoder

OWN = "encoder"  # beside RANDOM_ENCODER
NO_OBJECTS = "objects: this source does not say where objects are, so masks that lose one are not told apart"
NO_SCALE = "relative distances are left out: the encoder gives all images the same vector"


class Alignment(Protocol):
    """Alignment and diversity of masks, as an encoder sees them, with standard errors over images.

    Each image is encoded whole and under several masks of every strategy and ratio. Hidden patches are
    dropped, which is what MAE's encoder was trained on; a self-distilled encoder (iBOT's teacher) is treated
    alike, as the token that its student saw in their place is no part of it. Statistics, each under
    ``strategy@ratio/statistic`` and in four units:

    - ``alignment_…``: distance of the masked to the whole image; small = aligned.
    - ``diversity_…``: mean distance between two masks of the same image.
    - ``lost``: share of masks that lose an object, of which less than 5 % is then visible.
    - ``kept_…`` and ``lost_…``: alignment of masks that lose none, or at least one; ``lost_minus_kept_…``:
      their difference within images that have masks of both kinds.

    Units: ``l2`` depends on the scale of the features; ``unit_l2`` is that of vectors scaled to length 1;
    ``cosine`` is 1 - cos; ``relative`` is l2 over the mean distance between two different images, itself
    ``between_images/l2``, which it takes as exact.

    Strategies share images and noise: differences to random masks, in the table "statistics", are paired by
    image. The table "clouds" holds many masks of a few images in two dimensions. The baseline is the same
    masks seen by the same architecture without training.

    Args:
        masks: Strategies beside RandomMask; None = DPPMask. Those that read a teacher get the encoder as one.
        mask_ratios: Shares of hidden patches.
        num_masks: Masks per image, at least 2.
        num_images: How many images at most; None = all.
        batch_size: Images that share a draw of noise.
        split: Which part of the data.
        pooling: See :class:`~dppmask.evaluation.features.View`; the paper compares class tokens.
        random_encoder: Whether the untrained encoder is measured too, which doubles the time.
        num_clouds: How many images, from the first on, are shown in two dimensions.
        cloud_size: Masks of each of them.

    Raises:
        UserError: If an argument is outside its range.

    Source: DPPMask: Masked Image Modeling with Determinantal Point Processes, section 3.1 and appendix E.
    """

    scenes = "multi"

    def __init__(
        self,
        masks: Sequence[MaskStrategy] | None = None,
        mask_ratios: Sequence[float] = (0.75,),
        num_masks: int = 5,
        num_images: int | None = None,
        batch_size: int = 64,
        split: Split = "val",
        pooling: Pooling = "cls",
        random_encoder: bool = True,
        num_clouds: int = 1,
        cloud_size: int = 100,
    ) -> None:
        if not mask_ratios:
            raise UserError("mask_ratios must be at least one, got none; MAE uses 0.75")
        if len(set(mask_ratios)) < len(mask_ratios):
            raise UserError(f"mask_ratios must all differ, got {list(mask_ratios)}")
        for mask_ratio in mask_ratios:
            check_ratio(mask_ratio)
        check_least("num_masks", num_masks, 2, "to compare masks of one image")
        check_least("num_images", num_images, 2, "for a standard error")
        check_least("batch_size", batch_size, 1)
        if not 0 <= num_clouds <= batch_size:
            raise UserError(f"num_clouds must be in [0, {batch_size}], the batch_size, got {num_clouds}")
        check_least("cloud_size", cloud_size, 2, "to span a plane")
        self.masks = None if masks is None else tuple(masks)
        self.mask_ratios = tuple(mask_ratios)
        self.num_masks = num_masks
        self.num_images = num_images
        self.batch_size = batch_size
        self.split: Split = split
        self.pooling = pooling
        self.view = View(pooling)
        self.random_encoder = random_encoder
        self.num_clouds = num_clouds
        self.cloud_size = cloud_size

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`; the seed is that of masks and fresh weights."""
        encoder = subject.require_encoder(self.name)
        self.view.check(encoder)
        part = open_several(data, self.split, protocol=self.name)
        strategies = compared_strategies(self.masks, subject, protocol=self.name)
        grid = MaskGrid(strategies, self.mask_ratios, seed)
        encoders = {OWN: encoder}
        if self.random_encoder:
            encoders[RANDOM_ENCODER] = random_encoder(encoder, seed=seed).to(subject.compute.device)
        # The noise of a mask depends on the batch: batches have this protocol's own size.
        subject = replace(subject, compute=replace(subject.compute, batch_size=self.batch_size))
        batches = measured_batches(
            part, subject, PatchView.of(encoder, part.images), needs=grid.needs, count=self.num_images
        )
        findings, points = Findings(), []
        for index, batch in enumerate(batches):
            masks = grid.draw(batch.context, self.num_masks, index)
            seen = {name: self._represent(e, batch.images, subject) for name, e in encoders.items()}
            findings.add(masks, seen, batch.objects)
            if index == 0:
                points = self._clouds(grid, batch, subject)
        return self._result(strategies, findings, points)

    def _represent(self, encoder: Encoder, images: Tensor, subject: Subject) -> Represented:
        return Represented.of(encoder, images, self.view, subject.compute)

    def _clouds(self, grid: MaskGrid, batch: MeasuredBatch, subject: Subject) -> list[dict[str, Any]]:
        """The first images of a batch, each repeated for as many masks."""
        rows = []
        for image in range(min(self.num_clouds, len(batch.images))):
            repeated = batch.repeated(image, self.cloud_size, subject, grid.needs)
            seen = self._represent(subject.require_encoder(self.name), repeated.images, subject)
            rows += clouds(grid, repeated, seen, image=image)
        return rows

    def _result(
        self, strategies: Mapping[str, MaskStrategy], findings: Findings, points: list[dict[str, Any]]
    ) -> Result:
        random = next(iter(strategies))
        summaries = {name: findings.summary(name, random=random) for name in findings.whole}
        own = summaries.pop(OWN)
        notes = {NO_OBJECTS: findings.lost, NO_SCALE: own.between_images["l2"][0]}
        return Result(
            self.name,
            metrics=own.metrics(),
            standard_errors=own.standard_errors(),
            baselines={name: summary.metrics() for name, summary in summaries.items()},
            tables={
                "statistics": own.rows,
                "strategies": [{"strategy": k, **specs.describe(mask)} for k, mask in strategies.items()],
                "clouds": points,
            },
            notes=[note for note, is_there in notes.items() if not is_there],
        )
