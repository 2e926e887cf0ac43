"""The gallery that a record of ``MaskStatistics`` holds (Fig. 3 of the paper)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dppmask.data.png import from_png
from dppmask.figures.mask_gallery import Gallery, described_title
from dppmask.masks import Mask

Row = Mapping[str, Any]


def recorded_gallery(shown: Sequence[Row], strategies: Sequence[Row]) -> Gallery:
    """The images and masks of the table "shown".

    Args:
        shown: The table, at least one row.
        strategies: The table of the same name: what each label stands for.
    """
    images = torch.stack([from_png(row["image"]) for row in shown])
    rows, columns = shown[0]["grid"]
    titles = {row["strategy"]: described_title(row) for row in strategies}
    masks = {
        titles[first["strategy"]]: _mask([row["masks"][number] for row in shown], rows * columns)
        for number, first in enumerate(shown[0]["masks"])
    }
    return Gallery(images, (rows, columns), masks)


def _mask(rows: Sequence[Row], num_patches: int) -> Mask:
    """One strategy's masks of all images."""
    masked = torch.zeros(len(rows), num_patches, dtype=torch.bool)
    for image, row in enumerate(rows):
        masked[image, row["masked"]] = True
    gains = [row["gains"] for row in rows]
    return Mask.from_bool(masked, scores=None if None in gains else torch.tensor(gains))
