"""Errors of reconstructions, image by image: of hidden pixels, and of those that belong to objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dppmask.evaluation.mask_batches import MeasuredBatch
from dppmask.evaluation.mask_measures import LOST_BELOW, Found, PatchObjects
from dppmask.evaluation.pixels import Grid, on_pixels, plain_guesses, squared_error
from dppmask.masks import Mask

NETWORK = "network"  # beside the plain guesses

Scores = dict[str, dict[str, Found]]  # label of the strategy → who predicts → statistics


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What a model makes of one mask of each image of a batch.

    Attributes:
        mask: The mask.
        predicted: Pixels in [0, 1], ``[B, C, H, W]``; those of visible patches are not read.
    """

    mask: Mask
    predicted: Tensor

    def predictions(self, truth: Tensor, grid: Grid) -> dict[str, Tensor]:
        """Who predicts → pixels ``[B, C, H, W]``: the network first, then the plain guesses."""
        return {NETWORK: self.predicted, **plain_guesses(truth, self.mask.masked, grid)}

    def hidden(self, truth: Tensor, grid: Grid) -> Tensor:
        """Which pixels no network has seen, bool ``[B, H, W]``."""
        return on_pixels(self.mask.masked, grid, (truth.shape[2], truth.shape[3]))[:, 0]


def score(truth: Tensor, rebuilt: Mapping[str, Rebuilt], batch: MeasuredBatch) -> Scores:
    """Every statistic of every strategy on one batch.

    Args:
        truth: Pixels in [0, 1], ``[B, C, H, W]``.
        rebuilt: Label of the strategy → what was made of its masks.
        batch: The images, with their objects where these are known.
    """
    hidden = {label: one.hidden(truth, batch.grid) for label, one in rebuilt.items()}
    ones = torch.ones(len(truth), dtype=torch.float64)
    areas = {"error": (hidden, ones)}
    if batch.object_pixels is not None:
        objects = torch.stack([pixels.any(0) for pixels in batch.object_pixels]).to(truth.device)
        of_objects = {label: pixels & objects for label, pixels in hidden.items()}
        in_all = torch.stack([pixels.flatten(1).any(1) for pixels in of_objects.values()]).all(0)
        areas["object_error"] = (of_objects, in_all.double().cpu())
    scores: Scores = {}
    for label, one in rebuilt.items():
        scores[label] = {}
        for name, pixels in one.predictions(truth, batch.grid).items():
            squares = squared_error(pixels, truth)
            scores[label][name] = {
                statistic: (mean_over(squares, where[label]) * weights, weights)
                for statistic, (where, weights) in areas.items()
            }
        if batch.objects is not None:
            scores[label][NETWORK]["objects_lost"] = lost_share(one.mask, batch.objects)
    return scores


def mean_over(values: Tensor, where: Tensor) -> Tensor:
    """Mean of ``values`` over the pixels chosen in each image, float64 ``[B]``; 0 where there are none."""
    return ((values.double() * where).sum((1, 2)) / where.sum((1, 2)).clamp(min=1)).cpu()


def lost_share(mask: Mask, objects: PatchObjects) -> tuple[Tensor, Tensor]:
    """How many objects of each image are lost, and how many there are, float64 ``[B]`` each."""
    lost = objects.visible_share(mask) < LOST_BELOW
    return objects.per_image(lost), objects.per_image(torch.ones(len(lost)))


def joined(found: Sequence[Found]) -> Found:
    """Statistics over all batches, where every batch has them and at least two images say something."""
    everywhere = [name for name in found[0] if all(name in batch for batch in found)]
    both = {
        name: (torch.cat([b[name][0] for b in found]), torch.cat([b[name][1] for b in found]))
        for name in everywhere
    }
    return {name: values for name, values in both.items() if (values[1] > 0).sum() > 1}


def joined_scores(batches: Sequence[Scores]) -> Scores:
    """The scores of all batches."""
    return {
        label: {name: joined([batch[label][name] for batch in batches]) for name in found}
        for label, found in batches[0].items()
    }
