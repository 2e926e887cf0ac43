"""Features of training images that are cropped anew in every epoch, for probes that train on them."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from dppmask.data.module import Batch, TrainLoader
from dppmask.data.transforms import TrainTransform
from dppmask.errors import UserError
from dppmask.evaluation import ranks
from dppmask.evaluation.features import Features, frozen
from dppmask.evaluation.progress import reported
from dppmask.evaluation.task import Encoded


def augmented_features(
    encoded: Encoded, *, epochs: int, batch_size: int, min_scale: float, seed: int, title: str
) -> Iterator[Features]:
    """The features of one batch after another, on the device; the last, smaller batch of an epoch is dropped.

    Images are cropped at random and flipped. They are encoded in pieces of at most the compute's batch size,
    which the ranks divide among themselves; all get the whole batch.

    Args:
        encoded: The task and the encoder.
        epochs: Passes over the training part.
        batch_size: Images per batch.
        min_scale: Smallest area of a random crop, as a share of the image.
        seed: Of the order and the crops.
        title: What this is for, in the report of progress.
    """
    view, compute = encoded.task.view, encoded.task.compute
    encoder = encoded.encoder.to(compute.device)
    height, width = encoder.image_size
    per_rank, left_over = divmod(batch_size, ranks.num_ranks())
    if left_over:
        raise UserError(f"batch_size must be a multiple of the {ranks.num_ranks()} ranks, got {batch_size}")
    piece = largest_divisor(per_rank, compute.batch_size)
    loader = TrainLoader(
        encoded.task.train.images,
        TrainTransform((height, width), scale=(min_scale, 1.0), mean=encoder.mean, std=encoder.std),
        batch_size=piece,
        accumulate=per_rank // piece,
        world_size=ranks.num_ranks(),
        rank=ranks.rank(),
        seed=seed,
        num_workers=compute.num_workers,
    )
    total = len(loader) * piece * epochs
    pieces: list[Features] = []
    for batch in reported(
        _epochs(loader, epochs), f"{title} on {encoded.title}", total=total, per_item=piece
    ):
        with frozen(encoder, compute):
            tokens = encoder.encode(batch.images.to(compute.device), blocks=view.blocks)
            pieces.append(Features(view.pool(tokens), batch.sample_ids, batch.labels))
        if len(pieces) == per_rank // piece:
            yield _join(pieces, compute.device)
            pieces = []


def batches_per_epoch(encoded: Encoded, batch_size: int) -> int:
    """How many batches :func:`augmented_features` makes of one epoch.

    Raises:
        UserError: If the training part has fewer images than one batch.
    """
    num_images = len(encoded.task.train.images)
    if batch_size > num_images:
        raise UserError(
            f"batch_size must be at most the number of training images, {num_images}, got {batch_size}"
        )
    return num_images // batch_size


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of ``number`` that is at most ``most``.

    >>> largest_divisor(16384, 100)
    64
    """
    return max(divisor for divisor in range(1, most + 1) if number % divisor == 0)


def _epochs(loader: TrainLoader, count: int) -> Iterator[Batch]:
    for epoch in range(count):
        loader.set_epoch(epoch)
        yield from loader


def _join(pieces: list[Features], device: str) -> Features:
    return Features(
        _of_all_ranks([piece.values for piece in pieces], device),
        _of_all_ranks([piece.sample_ids for piece in pieces], device),
        _of_all_ranks([piece.require_labels() for piece in pieces], device),
    )


def _of_all_ranks(pieces: list[Tensor], device: str) -> Tensor:
    """The rows of a batch in the order in which one rank would meet them: piece by piece, then by rank."""
    mine = torch.cat(pieces)
    if ranks.num_ranks() == 1:
        return mine.to(device)
    by_rank = cast(Tensor, ranks.joined_rows(mine)).unflatten(0, (ranks.num_ranks(), len(pieces), -1))
    return by_rank.transpose(0, 1).flatten(0, 2).to(device)
