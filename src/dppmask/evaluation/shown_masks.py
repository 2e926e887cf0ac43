"""Masks of a few images as plain data, from which a gallery can be drawn without images or encoder."""

from collections.abc import Mapping
from typing import Any

from dppmask.data.png import to_png
from dppmask.data.transforms import EvalTransform, denormalise
from dppmask.evaluation.mask_batches import MeasuredBatch
from dppmask.evaluation.pixels import as_uint8
from dppmask.masks import Mask

_DIGITS = 5  # of a gain, so that a record stays short


def shown_masks(
    batch: MeasuredBatch, masks: Mapping[str, Mask], transform: EvalTransform, *, count: int
) -> list[dict[str, Any]]:
    """The first images of a batch with the masks of every strategy.

    Args:
        batch: The images.
        masks: Label of the strategy → its mask of these images.
        transform: How the images were normalised.
        count: How many images at most.

    Returns:
        A row for each image: ``image``, a PNG file in base64 as the encoder sees it; ``grid``, rows and
        columns of patches; and ``masks``: for each strategy the hidden patches in ascending order,
        ``masked``, and the scores of all patches, ``gains``, None where the strategy has none.
    """
    seen = batch.images[:count].detach().float().cpu()
    return [
        {
            "image": to_png(image),
            "grid": list(batch.grid),
            "masks": [{"strategy": label, **_one(mask, row)} for label, mask in masks.items()],
        }
        for row, image in enumerate(as_uint8(denormalise(seen, transform.mean, transform.std)))
    ]


def _one(mask: Mask, row: int) -> dict[str, Any]:
    gains = None if mask.scores is None else mask.scores[row].tolist()
    return {
        "masked": mask.masked[row].nonzero().flatten().tolist(),
        "gains": gains and [float(f"{gain:.{_DIGITS}g}") for gain in gains],
    }
