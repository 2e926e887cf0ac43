"""What was seen of masked images, batch by batch, and the statistics that come of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dppmask.evaluation.mask_grid import Setting
from dppmask.evaluation.mask_measures import Found, PatchObjects, beside_random
from dppmask.evaluation.representations import DISTANCES, Distances, Represented, mean_of_pairs
from dppmask.masks import Mask


@dataclass
class Findings:
    """What encoders have seen so far of the same masked images.

    Attributes:
        whole: Name of the encoder → its vectors of whole images, ``[B, D]`` a batch.
        distances: Name of the encoder → setting → distances of the masked images, a batch each.
        lost: Setting → which masks lose an object, bool ``[M, B]`` a batch; empty where that is not known.
    """

    whole: dict[str, list[Tensor]] = field(default_factory=dict)
    distances: dict[str, dict[Setting, list[Distances]]] = field(default_factory=dict)
    lost: dict[Setting, list[Tensor]] = field(default_factory=dict)

    def add(
        self,
        masks: Mapping[Setting, Sequence[Mask]],
        represented: Mapping[str, Represented],
        objects: PatchObjects | None,
    ) -> None:
        """One more batch: M masks of each image, what every encoder makes of the images, their objects."""
        for name, images in represented.items():
            self.whole.setdefault(name, []).append(images.whole.cpu())
            distances = self.distances.setdefault(name, {})
            for setting, several in masks.items():
                found = Distances.of(images.masked(several), images.whole)
                distances.setdefault(setting, []).append(found)
        if objects is not None:
            for setting, several in masks.items():
                flags = torch.stack([objects.lose_any(mask) for mask in several])
                self.lost.setdefault(setting, []).append(flags)

    def summary(self, name: str, *, random: str) -> "Summary":
        """Every statistic for one encoder; relative distances only if not all images look the same to it.

        Args:
            name: Of the encoder.
            random: Label of the strategy that the others are compared with.
        """
        whole = torch.cat(self.whole[name])
        between = {key: mean_of_pairs(distance.to_others(whole)) for key, distance in DISTANCES.items()}
        scale, _ = between["l2"]
        found = {}
        for setting, batches in self.distances[name].items():
            distances = Distances.join(batches)
            if scale:
                distances = distances.with_relative(scale)
            found[setting] = _means(distances)
            if setting in self.lost:
                found[setting] |= kept_and_lost(distances.alignment, torch.cat(self.lost[setting], dim=1))
        return Summary(statistic_rows(found, random=random), between)


@dataclass(frozen=True)
class Summary:
    """What an encoder has seen of masks, as plain data.

    Attributes:
        rows: See :func:`statistic_rows`.
        between_images: Name of the distance → its mean over pairs of different images, and standard error.
    """

    rows: list[dict[str, Any]]
    between_images: dict[str, tuple[float, float]]

    def metrics(self) -> dict[str, float]:
        """Every value by name."""
        between = {f"between_images/{name}": value for name, (value, _) in self.between_images.items()}
        return self._column("value") | between

    def standard_errors(self) -> dict[str, float]:
        """Every standard error by the same names."""
        between = {f"between_images/{name}": error for name, (_, error) in self.between_images.items()}
        return self._column("standard_error") | between

    def _column(self, name: str) -> dict[str, float]:
        return {f"{row['strategy']}@{row['mask_ratio']}/{row['statistic']}": row[name] for row in self.rows}


def _means(distances: Distances) -> Found:
    found = {f"alignment_{name}": values.mean(0) for name, values in distances.alignment.items()}
    found |= {f"diversity_{name}": values for name, values in distances.diversity.items()}
    return {name: (values, torch.ones_like(values)) for name, values in found.items()}


def kept_and_lost(alignment: Mapping[str, Tensor], lost: Tensor) -> Found:
    """Alignment of masks that lose no object, and of those that do, if at least two images have such masks.

    Args:
        alignment: By name of the distance, float64 ``[M, n]``.
        lost: Which masks lose an object, bool ``[M, n]``.
    """
    is_lost, is_kept = lost.double(), (~lost).double()
    num_lost, num_kept = is_lost.sum(0), is_kept.sum(0)  # [n]
    has_both = ((num_lost > 0) & (num_kept > 0)).double()
    found = {"lost": (is_lost.mean(0), torch.ones_like(num_lost))}
    for name, values in alignment.items():
        of_lost, of_kept = (values * is_lost).sum(0), (values * is_kept).sum(0)
        difference = of_lost / num_lost.clamp(min=1) - of_kept / num_kept.clamp(min=1)
        found |= {
            f"kept_{name}": (of_kept, num_kept),
            f"lost_{name}": (of_lost, num_lost),
            f"lost_minus_kept_{name}": (difference * has_both, has_both),
        }
    return {name: values for name, values in found.items() if (values[1] > 0).sum() > 1}


def statistic_rows(found: Mapping[Setting, Found], *, random: str) -> list[dict[str, Any]]:
    """A row for each setting and statistic: value, standard error, difference to random masks, images.

    The difference is paired by image; it is left out where other images have the statistic.

    Args:
        found: Every statistic, image by image.
        random: Label of the strategy that the others are compared with.
    """
    return [
        {"strategy": setting.strategy, "mask_ratio": setting.mask_ratio, "statistic": name}
        | beside_random(values, _same_images(found[setting._replace(strategy=random)].get(name), values[1]))
        | {"images": int((values[1] > 0).sum())}
        for setting, statistics in found.items()
        for name, values in statistics.items()
    ]


def _same_images(random: tuple[Tensor, Tensor] | None, weights: Tensor) -> tuple[Tensor, Tensor] | None:
    return random if random is not None and torch.equal(random[1], weights) else None
