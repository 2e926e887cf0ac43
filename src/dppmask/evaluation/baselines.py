"""What any number must be compared with: chance, raw pixels, the same encoder without training."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dppmask.errors import UserError, nearest
from dppmask.evaluation.base import Part
from dppmask.evaluation.features import eval_transform_of, part_batches
from dppmask.evaluation.metrics import average_precision
from dppmask.evaluation.neighbours import Neighbours, find_neighbours
from dppmask.evaluation.task import Encoded
from dppmask.models.encoder import Encoder
from dppmask.rng import seeded

CHANCE, RAW_PIXELS, RANDOM_ENCODER = BASELINES = ("chance", "raw_pixels", "random_encoder")
PIXEL_NEIGHBOURS = 20  # and the temperature, of the raw-pixel k-NN beside protocols without a k of their own
PIXEL_TEMPERATURE = 0.07
_RANDOM_WEIGHTS = 7  # keeps the stream of fresh weights apart from others of the same seed


def check_baselines(names: Sequence[str], offered: Sequence[str] = BASELINES) -> None:
    """Raise UserError unless all names are among those a protocol offers."""
    for name in names:
        if name not in offered:
            raise UserError(f"baseline {name!r} does not exist; {nearest(name, offered)}")


def chance_level(encoded: Encoded) -> float:
    """What needs no image.

    Classes: the accuracy of always answering the most frequent training class, 1 / C where they are balanced.
    Several labels: the mean average precision of a constant score, which is the mean share of positives.
    """
    labels = encoded.val_labels
    if labels.ndim > 1:
        return average_precision(torch.zeros(labels.shape), labels).mean().item()
    return (labels == encoded.train_labels.bincount().argmax()).double().mean().item()


def random_encoder(encoder: Encoder, *, seed: int) -> Encoder:
    """The same architecture and normalisation, freshly initialised."""
    with seeded(seed, _RANDOM_WEIGHTS):
        fresh = Encoder(**encoder.arguments())
    fresh.mean, fresh.std = encoder.mean, encoder.std
    return fresh


def pixel_neighbours(encoded: Encoded, *, k: int) -> Neighbours:
    """The nearest training images of each validation image, by the cosine of their normalised pixels.

    Pixels are those of the evaluation transform, at full size, all channels in one vector. Validation pixels
    are held in memory; training pixels pass by.
    """
    queries = torch.cat(list(_flat_pixels(encoded, encoded.task.val)))
    return find_neighbours(queries, _flat_pixels(encoded, encoded.task.train), k=k)


def pixel_votes(encoded: Encoded) -> Tensor:
    """Scores ``[Q, C]`` of the validation images by k-NN on raw pixels, k = 20 (or all images, if fewer)."""
    k = min(PIXEL_NEIGHBOURS, len(encoded.train_labels))
    targets = one_hot(encoded.train_labels, encoded.task.num_classes)
    return pixel_neighbours(encoded, k=k).votes(targets, k=k, temperature=PIXEL_TEMPERATURE)


def pixel_thumbnails(encoded: Encoded, part: Part, side: int) -> Tensor:
    """The images of a part, averaged so that no side is longer than ``side``, in index order: ``[n, D]``."""
    height, width = encoded.encoder.image_size
    shrink = min(1.0, side / max(height, width))
    size = (max(round(height * shrink), 1), max(round(width * shrink), 1))
    transform = eval_transform_of(encoded.encoder, part.images)
    batches = part_batches(part, transform, encoded.task.compute, "raw pixels")
    return torch.cat([F.adaptive_avg_pool2d(batch.images, size).flatten(1) for batch in batches])


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices ``[n]`` or labels ``[n, L]`` as float32 ``[n, C]``."""
    return F.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels.float()


def _flat_pixels(encoded: Encoded, part: Part) -> Iterator[Tensor]:
    compute, transform = encoded.task.compute, eval_transform_of(encoded.encoder, part.images)
    for batch in part_batches(part, transform, compute, "raw pixels"):
        yield batch.images.to(compute.device).flatten(1)
