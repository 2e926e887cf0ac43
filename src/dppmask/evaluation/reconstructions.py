"""What one MAE makes of the same images under different masks: errors, and pictures to draw (Fig. 8)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from dppmask import specs
from dppmask.data.base import ImageSource, Split
from dppmask.data.png import to_png
from dppmask.evaluation.base import Part, Protocol, Result, Subject, check_least
from dppmask.evaluation.features import frozen
from dppmask.evaluation.mask_batches import MeasuredBatch, PatchView, measured_batches
from dppmask.evaluation.mask_measures import beside_random, ratio
from dppmask.evaluation.pixels import (
    BORROWED,
    Grid,
    as_uint8,
    load_mae,
    predicted_pixels,
    replace_hidden,
    true_pixels,
)
from dppmask.evaluation.reconstruction_scores import NETWORK, Rebuilt, Scores, joined_scores, score
from dppmask.evaluation.strategies import compared_strategies, open_several
from dppmask.masks import MaskStrategy, num_masked_for
from dppmask.masks.base import check_ratio
from dppmask.models.mae import MAE
from dppmask.rng import fold_in

Row = dict[str, Any]

OTHER_PIXELS = "strategies hide different pixels: their errors compare what was asked of one network"
NO_OBJECTS = (
    "objects: this source does not say where objects are, so object_error and objects_lost are left out"
)
FEW_OBJECTS = (
    "object_error is left out: in fewer than two images does every strategy hide a part of an object"
)


class Reconstructions(Protocol):
    """One MAE fills in what each strategy hides, on the same images and from the same noise.

    Only the masks differ: one network sees those of all strategies. Statistics, each under
    ``strategy/statistic``, with standard errors over images:

    - ``error``: squared error of hidden pixels. Their values are in [0, 1], and predictions are clipped to
      that. It is averaged over channels, over the hidden pixels of an image, then over images.
    - ``object_error``: the same over those hidden pixels that belong to objects, in the images in which every
      strategy hides some.
    - ``objects_lost``: share of objects of which less than 5 % is visible.

    :class:`~dppmask.masks.uniform.RandomMask` always takes part, and the table "statistics" holds every
    strategy's difference to it, paired by image. Baselines fill the same pixels with the mean colour of the
    visible ones (``visible_mean``) and with the true mean colour of each patch (``patch_mean``). The table
    "shown" holds the first images with the visible patches and the reconstruction of each strategy; pictures
    are texts as of :func:`~dppmask.data.png.to_png`.

    Args:
        masks: Strategies; None = RandomMask and DPPMask. Those that read a teacher get the encoder as one.
        mask_ratio: Share of hidden patches.
        num_images: How many images at most; None = all.
        num_shown: How many of them, from the first on, are kept as pictures.
        batch_size: Images that share a draw of noise.
        split: Which part of the data.

    Raises:
        UserError: If an argument is outside its range.

    Source: DPPMask: Masked Image Modeling with Determinantal Point Processes, figure 8.
    """

    scenes = "multi"

    def __init__(
        self,
        masks: Sequence[MaskStrategy] | None = None,
        mask_ratio: float = 0.75,
        num_images: int | None = None,
        num_shown: int = 4,
        batch_size: int = 64,
        split: Split = "val",
    ) -> None:
        check_ratio(mask_ratio)
        check_least("num_images", num_images, 2, "for a standard error")
        check_least("num_shown", num_shown, 0)
        check_least("batch_size", batch_size, 1)
        self.masks = None if masks is None else tuple(masks)
        self.mask_ratio = mask_ratio
        self.num_images = num_images
        self.num_shown = num_shown
        self.batch_size = batch_size
        self.split: Split = split

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`; the seed is that of the masks."""
        model = load_mae(subject, protocol=self.name)
        part = open_several(data, self.split, protocol=self.name)
        # The noise of a mask depends on the batch: batches have this protocol's own size.
        compute = replace(subject.compute, batch_size=self.batch_size)
        subject = replace(subject, encoder=model.encoder, compute=compute)
        strategies = compared_strategies(self.masks, subject, protocol=self.name)
        scores: list[Scores] = []
        shown: list[Row] = []
        for index, batch in enumerate(self._batches(model, part, subject, strategies)):
            truth = true_pixels(model, batch.images)
            rebuilt = {}
            with frozen(model, compute):
                for label, strategy in strategies.items():
                    generator = fold_in(seed, index)  # the same for every strategy
                    mask = strategy(batch.context, self._num_masked(batch), generator=generator)
                    rebuilt[label] = Rebuilt(mask, predicted_pixels(model, batch.context, mask))
            scores.append(score(truth, rebuilt, batch))
            for row in range(min(self.num_shown - len(shown), len(truth))):
                shown.append(show(truth, rebuilt, batch.grid, row, number=len(shown)))
        notes = [OTHER_PIXELS, *([BORROWED] if model.norm_pix_loss else [])]
        return summarise(strategies, joined_scores(scores), shown, notes)

    def _batches(
        self, model: MAE, part: Part, subject: Subject, strategies: Mapping[str, MaskStrategy]
    ) -> Iterator[MeasuredBatch]:
        needs = frozenset().union(*(strategy.needs for strategy in strategies.values()))
        view = PatchView.of(model.encoder, part.images)
        return measured_batches(part, subject, view, needs=needs, count=self.num_images)

    def _num_masked(self, batch: MeasuredBatch) -> int:
        return num_masked_for(self.mask_ratio, batch.context.num_patches)


def show(truth: Tensor, rebuilt: Mapping[str, Rebuilt], grid: Grid, row: int, *, number: int) -> Row:
    """One image of a batch as plain data: as it is, and what is made of it by each strategy.

    Args:
        truth: Pixels in [0, 1], ``[B, C, H, W]``.
        rebuilt: Label of the strategy → what was made of its masks.
        grid: (rows, columns) of patches.
        row: Which image of the batch.
        number: What it is called.
    """
    made = [
        {"strategy": label, **shown_mask(truth[row], one.mask.masked[row], one.predicted[row], grid)}
        for label, one in rebuilt.items()
    ]
    return {"image": number, "grid": list(grid), "original": to_png(as_uint8(truth[row])), "made": made}


def shown_mask(truth: Tensor, masked: Tensor, predicted: Tensor, grid: Grid) -> Row:
    """The visible patches of one mask, and the image with its hidden patches as predicted.

    Args:
        truth: Pixels in [0, 1], ``[C, H, W]``.
        masked: bool ``[N]``; True = hidden.
        predicted: As ``truth``.
        grid: (rows, columns) of patches.
    """
    filled = replace_hidden(truth[None], predicted[None], masked[None], grid)[0]
    return {
        "visible": (~masked).nonzero().flatten().tolist(),
        "reconstruction": to_png(as_uint8(filled)),
    }


def summarise(
    strategies: Mapping[str, MaskStrategy], scores: Scores, shown: list[Row], notes: list[str]
) -> Result:
    """Means, standard errors and differences to random masks.

    Args:
        strategies: By label, RandomMask first.
        scores: By the same labels.
        shown: The table of pictures.
        notes: What is to be known about the numbers anyway.
    """
    random = scores[next(iter(strategies))][NETWORK]
    rows: list[Row] = [
        {"strategy": label, "statistic": name, **beside_random(values, random[name])}
        | {"images": int((values[1] > 0).sum())}
        for label in strategies
        for name, values in scores[label][NETWORK].items()
    ]
    guesses = [name for name in next(iter(scores.values())) if name != NETWORK]
    missing = {NO_OBJECTS: "objects_lost", FEW_OBJECTS: "object_error"}
    left_out = [note for note, statistic in missing.items() if statistic not in random]
    return Result(
        "Reconstructions",
        metrics={f"{row['strategy']}/{row['statistic']}": row["value"] for row in rows},
        standard_errors={f"{row['strategy']}/{row['statistic']}": row["standard_error"] for row in rows},
        baselines={
            guess: {
                f"{label}/{name}": ratio(*values)[0]
                for label in strategies
                for name, values in scores[label][guess].items()
            }
            for guess in guesses
        },
        tables={
            "statistics": rows,
            "strategies": [{"strategy": label, **specs.describe(mask)} for label, mask in strategies.items()],
            "shown": shown,
        },
        notes=[*notes, *left_out[:1]],
    )
