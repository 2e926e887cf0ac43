"""What any number must be compared with: chance, raw pixels, the same encoder without training."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dppmask.errors import UserError, nearest
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.features import eval_transform_of, part_batches
from dppmask.evaluation.metrics import average_precision
from dppmask.evaluation.neighbours import Neighbours, find_neighbours
from dppmask.models.encoder import Encoder
from dppmask.rng import seeded

CHANCE, RAW_PIXELS, RANDOM_ENCODER = BASELINES = ("chance", "raw_pixels", "random_encoder")
PIXEL_NEIGHBOURS, PIXEL_TEMPERATURE = (
    20,
    0.07,
)  # of the raw-pixel k-NN beside protocols that have no k of their own
_RANDOM_WEIGHTS = 7  # keeps the stream of fresh weights apart from others of the same seed


def check_baselines(names: Sequence[str]) -> None:
    """Raise UserError unless all names are known."""
    for name in names:
        if name not in BASELINES:
            raise UserError(f"baseline {name!r} does not exist; {nearest(name, BASELINES)}")


def chance_accuracy(train_labels: Tensor, val_labels: Tensor) -> float:
    """Accuracy of always answering the most frequent training class; 1 / C where classes are balanced."""
    return (val_labels == train_labels.bincount().argmax()).double().mean().item()


def chance_precision(val_labels: Tensor) -> float:
    """Mean average precision of a constant score on labels bool ``[n, L]``: the mean share of positives."""
    return average_precision(torch.zeros(val_labels.shape), val_labels).mean().item()


def random_encoder(encoder: Encoder, *, seed: int) -> Encoder:
    """The same architecture, freshly initialised."""
    with seeded(seed, _RANDOM_WEIGHTS):
        return Encoder(**encoder.arguments())


def pixel_neighbours(train: Part, val: Part, encoder: Encoder, compute: Compute, *, k: int) -> Neighbours:
    """The nearest training images of each validation image, by the cosine of their normalised pixels.

    Pixels are those of the evaluation transform, at full size, all channels in one vector. Validation pixels
    are held in memory; training pixels pass by.
    """
    queries = torch.cat(list(_flat_pixels(val, encoder, compute)))
    return find_neighbours(queries, _flat_pixels(train, encoder, compute), k=k)


def pixel_votes(train: Part, val: Part, encoder: Encoder, compute: Compute, train_targets: Tensor) -> Tensor:
    """Scores ``[Q, C]`` of the validation images by k-NN on raw pixels, k = 20 (or all images, if fewer).

    Args:
        train: Whose images are the neighbours.
        val: Whose images are classified.
        encoder: Whose image size and normalisation count.
        compute: Where.
        train_targets: One-hot or multi-hot ``[M, C]``.
    """
    k = min(PIXEL_NEIGHBOURS, len(train_targets))
    neighbours = pixel_neighbours(train, val, encoder, compute, k=k)
    return neighbours.votes(train_targets, k=k, temperature=PIXEL_TEMPERATURE)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices ``[n]`` or labels ``[n, L]`` as float32 ``[n, C]``."""
    return F.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels.float()


def _flat_pixels(part: Part, encoder: Encoder, compute: Compute) -> Iterator[Tensor]:
    for batch in part_batches(part, eval_transform_of(encoder), compute, "raw pixels"):
        yield batch.images.to(compute.device).flatten(1)
