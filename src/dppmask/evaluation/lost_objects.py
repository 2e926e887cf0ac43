"""What an MAE makes of objects of which its mask shows nothing, beside masks that show them (Fig. 1)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dppmask import specs
from dppmask.data.base import ImageSource, Split
from dppmask.data.png import to_png
from dppmask.errors import UserError
from dppmask.evaluation.base import Part, Protocol, Result, Subject, check_least
from dppmask.evaluation.features import frozen
from dppmask.evaluation.lost_object_scores import Example, ObjectErrors, Trial
from dppmask.evaluation.mask_batches import MeasuredBatch, PatchView, measured_batches
from dppmask.evaluation.mask_measures import Found, ratio
from dppmask.evaluation.pixels import BORROWED, as_uint8, load_mae, predicted_pixels, true_pixels
from dppmask.evaluation.reconstruction_scores import NETWORK, Rebuilt, joined
from dppmask.evaluation.reconstructions import Row, shown_mask
from dppmask.evaluation.strategies import check_strategy, label_of, open_several
from dppmask.masks import MaskStrategy, RandomMask, num_masked_for
from dppmask.masks.base import check_ratio
from dppmask.models.mae import MAE
from dppmask.rng import fold_in

OTHER_PIXELS = (
    "a mask that keeps an object hides other pixels of it than one that loses it; how much masks of the two "
    "kinds differ outside the object, baseline elsewhere says"
)
TOO_FEW = (
    "fewer than two images have an object with masks that keep and masks that lose it, so lost_minus_kept is "
    "left out; take more images or masks"
)


class LostObjects(Protocol):
    """How much worse an MAE predicts an object when its mask shows none of it.

    Each image is filled in from many masks of one strategy. A mask loses an object of which less than 5 % of
    the pixels are visible, and keeps it otherwise. The error of an object under a mask is the squared error
    of its hidden pixels, averaged over channels and those pixels; their values are in [0, 1], and predictions
    are clipped to that. An object that a mask shows wholly has none. Metrics, with standard errors over
    images:

    - ``lost``: share of pairs of an object and a mask that loses it.
    - ``kept_error``, ``lost_error``: mean error of pairs with a mask that keeps the object, or loses it.
    - ``lost_minus_kept``: mean difference within objects that have errors of both kinds.

    Baselines, under the same names: the mean colour of the visible pixels (``visible_mean``), the true mean
    colour of each patch (``patch_mean``), and the network's own error of the hidden pixels outside the object
    (``elsewhere``), for which it should matter little whether this object is lost.

    The table "shown" holds pictures of the first images that have an object which one mask loses and another
    keeps but does not show wholly. Of several such objects it is the one with most pixels, of several such
    masks the first of each kind; how well they are filled in plays no part.

    Args:
        mask: Who is hidden; None = uniformly random patches.
        mask_ratio: Share of hidden patches.
        num_masks: Masks per image, at least 2.
        num_images: How many images at most; None = all.
        num_shown: How many images are kept as pictures.
        batch_size: Images that share a draw of noise.
        split: Which part of the data.

    Raises:
        UserError: If an argument is outside its range.

    Source: DPPMask: Masked Image Modeling with Determinantal Point Processes, figure 1.
    """

    scenes = "multi"

    def __init__(
        self,
        mask: MaskStrategy | None = None,
        mask_ratio: float = 0.75,
        num_masks: int = 8,
        num_images: int | None = None,
        num_shown: int = 2,
        batch_size: int = 64,
        split: Split = "val",
    ) -> None:
        check_ratio(mask_ratio)
        if num_masks < 2:
            raise UserError(
                f"num_masks must be at least 2, to keep an object and to lose it, got {num_masks}"
            )
        check_least("num_images", num_images, 2, "for a standard error")
        check_least("num_shown", num_shown, 0)
        check_least("batch_size", batch_size, 1)
        self.mask = mask
        self.mask_ratio = mask_ratio
        self.num_masks = num_masks
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
        strategy = (self.mask or RandomMask()).to(compute.device)
        check_strategy(strategy, subject, protocol=self.name)
        found: list[dict[str, Found]] = []
        shown: list[Row] = []
        first = 0
        for index, batch in enumerate(self._batches(model, part, subject, strategy)):
            with frozen(model, compute):
                rebuilt = [
                    self._rebuild(model, batch, strategy, fold_in(seed, index, number))
                    for number in range(self.num_masks)
                ]
            trial = trial_of(true_pixels(model, batch.images), rebuilt, batch)
            errors = ObjectErrors.of(trial)
            found.append(errors.found())
            examples = errors.examples()[: self.num_shown - len(shown)]
            shown += [show(trial, errors, example, first=first) for example in examples]
            first += len(batch.images)
        rows = {name: joined([batch[name] for batch in found]) for name in found[0]}
        return summarise(strategy, rows, shown, notes=[BORROWED] if model.norm_pix_loss else [])

    def _batches(
        self, model: MAE, part: Part, subject: Subject, strategy: MaskStrategy
    ) -> Iterator[MeasuredBatch]:
        view = PatchView.of(model.encoder, part.images)
        return measured_batches(part, subject, view, needs=strategy.needs, count=self.num_images)

    def _rebuild(
        self, model: MAE, batch: MeasuredBatch, strategy: MaskStrategy, generator: torch.Generator
    ) -> Rebuilt:
        num_masked = num_masked_for(self.mask_ratio, batch.context.num_patches)
        mask = strategy(batch.context, num_masked, generator=generator)
        return Rebuilt(mask, predicted_pixels(model, batch.context, mask))


def trial_of(truth: Tensor, rebuilt: Sequence[Rebuilt], batch: MeasuredBatch) -> Trial:
    """What is scored of a batch.

    Raises:
        UserError: If its source does not say where objects are.
    """
    if batch.objects is None or batch.object_pixels is None:
        raise UserError(
            "LostObjects needs to know where objects are, which this source does not say; use one with masks "
            "of objects, such as Scenes or COCO"
        )
    return Trial(truth, rebuilt, batch.grid, batch.objects, batch.object_pixels)


def show(trial: Trial, errors: ObjectErrors, example: Example, *, first: int) -> Row:
    """One object as plain data: the image, where the object is, and what is made of a mask of each kind.

    Args:
        trial: The batch.
        errors: Its errors.
        example: Which object and masks.
        first: Number of the first image of the batch.
    """
    image = int(trial.objects.image[example.item])
    number = int((trial.objects.image[: example.item] == image).sum())
    row: Row = {
        "image": first + image,
        "object": number,
        "grid": list(trial.grid),
        "original": to_png(as_uint8(trial.truth[image])),
        "object_pixels": to_png(as_uint8(trial.object_pixels[image][number][None])),
    }
    for kind in ("kept", "lost"):
        mask = getattr(example, kind)
        rebuilt = trial.rebuilt[mask]
        row[kind] = {
            **shown_mask(
                trial.truth[image], rebuilt.mask.masked[image], rebuilt.predicted[image], trial.grid
            ),
            "visible_share": errors.shares[mask, example.item].item(),
            "error": errors.errors[NETWORK][mask, example.item].item(),
        }
    return row


def summarise(
    strategy: MaskStrategy, found: Mapping[str, Found], shown: list[Row], notes: list[str]
) -> Result:
    """Means and standard errors, of the network and of everybody else.

    Args:
        strategy: Whose masks.
        found: Who predicts → statistics over all images.
        shown: The table of pictures.
        notes: What is to be known about the numbers anyway.

    Raises:
        UserError: If fewer than two images have an object.
    """
    if "lost" not in found[NETWORK]:
        raise UserError("LostObjects needs at least 2 images with an object for a standard error; take more")
    metrics = {by: {name: ratio(*values) for name, values in found[by].items()} for by in found}
    rows = [
        {"predicted_by": by, "statistic": name, "value": value, "standard_error": error}
        | {"images": int((found[by][name][1] > 0).sum()), "count": int(found[by][name][1].sum())}
        for by, statistics in metrics.items()
        for name, (value, error) in statistics.items()
    ]
    values = {by: {name: value for name, (value, _) in metrics[by].items()} for by in metrics}
    return Result(
        "LostObjects",
        metrics=values.pop(NETWORK),
        standard_errors={name: error for name, (_, error) in metrics[NETWORK].items()},
        baselines=values,
        tables={
            "statistics": rows,
            "strategies": [{"strategy": label_of(strategy), **specs.describe(strategy)}],
            "shown": shown,
        },
        notes=[OTHER_PIXELS, *notes, *([] if "lost_minus_kept" in found[NETWORK] else [TOO_FEW])],
    )
