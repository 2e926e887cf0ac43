"""How far apart the vectors are that an encoder makes of masked images: distances on any scale."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dppmask.evaluation.base import Compute
from dppmask.evaluation.features import View, frozen
from dppmask.masks import Mask
from dppmask.models.encoder import Encoder

ROWS_AT_A_TIME = 256  # of the distances between all images, which would be n × n


class Distance(NamedTuple):
    """A function of the Euclidean distance between two vectors.

    Attributes:
        prepare: What is done to the vectors ``[..., D]``, in float64.
        finish: What is done to their distance.
    """

    prepare: Callable[[Tensor], Tensor]
    finish: Callable[[Tensor], Tensor]

    def between(self, one: Tensor, other: Tensor) -> Tensor:
        """Float64 ``[...]`` of vectors ``[..., D]``; exactly 0 where they are equal."""
        difference = self.prepare(one.double()) - self.prepare(other.double())
        return self.finish(difference.norm(dim=-1))

    def to_others(self, vectors: Tensor) -> Tensor:
        """The mean distance of each of the vectors ``[n, D]`` to the rest, float64 ``[n]``."""
        prepared = self.prepare(vectors.double())
        sums = [self.finish(torch.cdist(rows, prepared)).sum(1) for rows in prepared.split(ROWS_AT_A_TIME)]
        return torch.cat(sums) / (len(vectors) - 1)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _to_length_1(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def _one_minus_cosine(length: Tensor) -> Tensor:
    return length.square() / 2  # of two vectors of length 1


DISTANCES = {
    "l2": Distance(_unchanged, _unchanged),  # on the scale of the features
    "unit_l2": Distance(_to_length_1, _unchanged),
    "cosine": Distance(_to_length_1, _one_minus_cosine),
}


@dataclass(frozen=True, eq=False)
class Represented:
    """A batch of images as an encoder sees it.

    Attributes:
        encoder: The encoder.
        view: How its tokens become one vector.
        compute: How it is run.
        tokens: ``[B, N, D]``, the embedded patches of the whole images.
        whole: ``[B, D]``, the vectors of the whole images.
    """

    encoder: Encoder
    view: View
    compute: Compute
    tokens: Tensor
    whole: Tensor

    @classmethod
    def of(cls, encoder: Encoder, images: Tensor, view: View, compute: Compute) -> "Represented":
        """Encode whole images ``[B, C, H, W]``."""
        with frozen(encoder, compute):
            tokens = encoder.embed(images)
            return cls(encoder, view, compute, tokens, view.pool(encoder(tokens)))

    def masked(self, masks: Sequence[Mask]) -> Tensor:
        """The vectors of what several masks leave visible, ``[M, B, D]``; the rest is dropped."""
        with frozen(self.encoder, self.compute):
            return torch.stack([self.view.pool(self.encoder(self.tokens, mask)) for mask in masks])


@dataclass(frozen=True, eq=False)
class Distances:
    """How far masks move images, and how far apart they put them, by name of the distance.

    Attributes:
        alignment: float64 ``[M, n]``, from each masked image to the whole one.
        diversity: float64 ``[n]``, mean over all pairs of the M masks of an image.
    """

    alignment: Mapping[str, Tensor]
    diversity: Mapping[str, Tensor]

    @classmethod
    def of(cls, masked: Tensor, whole: Tensor) -> "Distances":
        """From the vectors of masked images ``[M, n, D]``, M ≥ 2, and of whole ones ``[n, D]``."""
        one, other = torch.triu_indices(len(masked), len(masked), offset=1)
        return cls(
            {name: distance.between(masked, whole).cpu() for name, distance in DISTANCES.items()},
            {
                name: distance.between(masked[one], masked[other]).mean(0).cpu()
                for name, distance in DISTANCES.items()
            },
        )

    def with_relative(self, scale: float) -> "Distances":
        """The same, and "relative": "l2" in units of ``scale``."""
        return Distances(
            {**self.alignment, "relative": self.alignment["l2"] / scale},
            {**self.diversity, "relative": self.diversity["l2"] / scale},
        )

    @classmethod
    def join(cls, batches: Sequence["Distances"]) -> "Distances":
        """Of several batches, one after the other."""
        return cls(
            {name: torch.cat([batch.alignment[name] for batch in batches], dim=1) for name in DISTANCES},
            {name: torch.cat([batch.diversity[name] for batch in batches]) for name in DISTANCES},
        )


def mean_of_pairs(to_others: Tensor) -> tuple[float, float]:
    """The mean distance between two different images, and its standard error as images are drawn at random.

    A mean over all pairs varies twice as much as the mean of as many independent numbers like ``to_others``.

    Args:
        to_others: Mean distance of each image to the others, float64 ``[n]``, n ≥ 2.

    Source: Hoeffding (1948), *A Class of Statistics with Asymptotically Normal Distribution*.
    """
    return to_others.mean().item(), 2 * to_others.std().item() / len(to_others) ** 0.5
