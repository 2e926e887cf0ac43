"""Errors of single objects under many masks, split by whether a mask loses the object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dppmask.evaluation.mask_measures import LOST_BELOW, Found, PatchObjects
from dppmask.evaluation.pixels import Grid, squared_error
from dppmask.evaluation.reconstruction_scores import NETWORK, Rebuilt

ELSEWHERE = "elsewhere"  # the network's error outside the object


class Example(NamedTuple):
    """An object with a mask of each kind.

    Attributes:
        item: Number of the object in the batch.
        kept: Number of a mask that shows a part of it.
        lost: Number of a mask that loses it.
    """

    item: int
    kept: int
    lost: int


@dataclass(frozen=True, eq=False)
class Trial:
    """A batch of images filled in from several masks.

    Attributes:
        truth: Pixels in [0, 1], ``[B, C, H, W]``.
        rebuilt: What was made of each of M masks.
        grid: (rows, columns) of patches.
        objects: The O objects of all images.
        object_pixels: The same, bool ``[O_i, H, W]`` for each image.
    """

    truth: Tensor
    rebuilt: Sequence[Rebuilt]
    grid: Grid
    objects: PatchObjects
    object_pixels: Sequence[Tensor]


@dataclass(frozen=True, eq=False)
class ObjectErrors:
    """How well the objects of a batch are predicted.

    Attributes:
        errors: Who predicts → error of each object under each mask, float64 ``[M, O]``; NaN where no pixel is
            scored.
        shares: Visible share of each object, ``[M, O]``.
        objects: Where the objects are.
    """

    errors: dict[str, Tensor]
    shares: Tensor
    objects: PatchObjects

    @classmethod
    def of(cls, trial: Trial) -> "ObjectErrors":
        """Score every mask."""
        truth, objects = trial.truth, trial.objects
        errors: dict[str, list[Tensor]] = {}
        for one in trial.rebuilt:
            hidden = one.hidden(truth, trial.grid).double()
            counts = over_objects(hidden, trial.object_pixels)
            for name, pixels in one.predictions(truth, trial.grid).items():
                squares = squared_error(pixels, truth).double() * hidden
                sums = over_objects(squares, trial.object_pixels)
                errors.setdefault(name, []).append(mean_or_nan(sums, counts))
                if name == NETWORK:
                    others = squares.sum((1, 2)).cpu()[objects.image] - sums
                    num_others = hidden.sum((1, 2)).cpu()[objects.image] - counts
                    errors.setdefault(ELSEWHERE, []).append(mean_or_nan(others, num_others))
        shares = torch.stack([objects.visible_share(one.mask) for one in trial.rebuilt])
        return cls({name: torch.stack(values) for name, values in errors.items()}, shares, objects)

    @property
    def lost(self) -> Tensor:
        """Which masks lose which objects, bool ``[M, O]``."""
        return self.shares < LOST_BELOW

    def found(self) -> dict[str, Found]:
        """Who predicts → statistics, image by image."""
        found = {name: self._kept_and_lost(errors) for name, errors in self.errors.items()}
        per_image, lost = self.objects.per_image, self.lost.double()
        found[NETWORK]["lost"] = per_image(lost.mean(0)), per_image(torch.ones(lost.shape[1]))
        return found

    def examples(self) -> list[Example]:
        """One for each image that has an object of which a mask shows a part, and another loses it.

        Of several such objects the one with most pixels, of several such masks the first.
        """
        kept = ~self.lost & ~self.errors[NETWORK].isnan()
        has_both = kept.any(0) & self.lost.any(0)
        sizes = self.objects.pixels.sum(1) * has_both
        found = []
        for image in self.objects.image[has_both].unique().tolist():
            item = int((sizes * (self.objects.image == image)).argmax())
            first = [int(masks[:, item].int().argmax()) for masks in (kept, self.lost)]
            found.append(Example(item, *first))
        return found

    def _kept_and_lost(self, errors: Tensor) -> Found:
        scored, values = ~errors.isnan(), errors.nan_to_num()
        is_kept, is_lost = (~self.lost & scored).double(), (self.lost & scored).double()
        num_kept, num_lost = is_kept.sum(0), is_lost.sum(0)  # [O]
        of_kept, of_lost = (values * is_kept).sum(0), (values * is_lost).sum(0)
        has_both = ((num_kept > 0) & (num_lost > 0)).double()
        difference = of_lost / num_lost.clamp(min=1) - of_kept / num_kept.clamp(min=1)
        per_image = self.objects.per_image
        return {
            "kept_error": (per_image(of_kept), per_image(num_kept)),
            "lost_error": (per_image(of_lost), per_image(num_lost)),
            "lost_minus_kept": (per_image(difference * has_both), per_image(has_both)),
        }


def over_objects(values: Tensor, object_pixels: Sequence[Tensor]) -> Tensor:
    """Sum values ``[B, H, W]`` over the pixels of each object of each image: float64 ``[O]`` on the CPU."""
    return torch.cat(
        [
            pixels.flatten(1).to(values) @ image.flatten()
            for pixels, image in zip(object_pixels, values, strict=True)
        ]
    ).cpu()


def mean_or_nan(sums: Tensor, counts: Tensor) -> Tensor:
    """``sums / counts``; NaN where nothing was counted."""
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.nan)
