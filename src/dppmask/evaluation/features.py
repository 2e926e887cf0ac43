"""Frozen features: one vector per image, extracted once and kept on disk."""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import Subset

from dppmask import specs
from dppmask.data.base import ImageSource
from dppmask.data.module import Batch, eval_batches
from dppmask.data.transforms import RESIZE_RATIO, EvalTransform
from dppmask.errors import UserError
from dppmask.evaluation import ranks
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.progress import reported
from dppmask.files import replace_file
from dppmask.masks.base import Tokens
from dppmask.models.encoder import Encoder

log = logging.getLogger(__name__)

Pooling = Literal["cls", "mean", "cls_mean"]


@dataclass(frozen=True)
class View:
    """How an image becomes one vector.

    Attributes:
        pooling: "cls" = the class token, "mean" = the mean of the patch tokens, "cls_mean" = both, side by
            side. All are read behind the final norm.
        blocks: How many of the last blocks contribute, side by side.

    Raises:
        UserError: If an attribute is outside its range.
    """

    pooling: Pooling = "cls"
    blocks: int = 1

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise UserError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {self.pooling!r}")
        if self.blocks < 1:
            raise UserError(f"blocks must be at least 1, got {self.blocks}")

    def check(self, encoder: Encoder) -> None:
        """Raise UserError if the encoder cannot be read this way."""
        if self.pooling != "mean" and not encoder.num_prefix:
            raise UserError(
                f"pooling {self.pooling!r} needs a class token, which {encoder.backbone_name} lacks; "
                "use 'mean'"
            )
        if self.blocks > encoder.depth:
            raise UserError(
                f"blocks must be at most the depth of the encoder, {encoder.depth}, got {self.blocks}"
            )

    def width(self, encoder: Encoder) -> int:
        """D, the length of a vector."""
        return encoder.embed_dim * self.blocks * (2 if self.pooling == "cls_mean" else 1)

    def pool(self, tokens: Tokens) -> Tensor:
        """One vector per image, float32 ``[B, D]`` (twice as long for "cls_mean")."""
        parts = []
        if self.pooling != "mean":
            parts.append(tokens.prefix[:, 0])
        if self.pooling != "cls":
            parts.append(tokens.patches.mean(dim=1))
        return torch.cat(parts, dim=1).float()


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one part of a source, in index order; unreadable images are left out.

    Attributes:
        values: float32 ``[n, D]``.
        sample_ids: int64 ``[n]``, indices of the part.
        labels: Class index int64 ``[n]``, labels bool ``[n, L]``, or None.
    """

    values: Tensor
    sample_ids: Tensor
    labels: Tensor | None = None

    def notes(self, part: Part) -> list[str]:
        """Says how many images of the part could not be read, if any."""
        missing = len(part.images) - len(self.values)
        return [f"{part.split}: {missing} images could not be read and are left out"] if missing else []

    def require_labels(self) -> Tensor:
        """The labels.

        Raises:
            UserError: If there are none.
        """
        if self.labels is None:
            raise UserError("these images have no labels; sort them into one folder per class")
        return self.labels


@contextmanager
def frozen(network: nn.Module, compute: Compute) -> Iterator[None]:
    """Run a block with a network in evaluation mode, without gradient, with ``compute``'s autocast."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), compute.autocast():
            yield
    finally:
        for module, training in modes:
            module.training = training


def first_images(part: Part, count: int | None) -> range:
    """Indices of the first ``count`` images of a part, or of all that there are."""
    return range(len(part.images) if count is None else min(count, len(part.images)))


def part_batches(
    part: Part, transform: EvalTransform, compute: Compute, title: str, *, among: range | None = None
) -> Iterator[Batch]:
    """Consecutive images of a part (``among`` = None: all), in index order; progress goes to stderr.

    ``sample_ids`` are indices of the part. An image that cannot be read is left out, not replaced by the
    next.
    """
    among = range(len(part.images)) if among is None else among
    batches = eval_batches(
        Subset(part.images, among),
        transform,
        batch_size=compute.batch_size,
        num_workers=compute.num_workers,
    )
    first = among.start
    for batch in reported(batches, f"{title} of {part.split}", total=len(among), per_item=compute.batch_size):
        ids = torch.arange(first, first + len(batch.images))
        first += len(ids)
        batch = replace(batch, sample_ids=ids) if _all_read(part) else _without_stand_ins(batch, ids)
        if len(batch.images):
            yield batch


def _all_read(part: Part) -> bool:
    """Whether every file so far could be read; sources that are no files say nothing about it."""
    return getattr(part.images, "num_unreadable", 0) == 0


def _without_stand_ins(batch: Batch, ids: Tensor) -> Batch:
    """Drop images that stand in for unreadable ones: their id is not the one asked for."""
    own = batch.sample_ids == ids
    labels = None if batch.labels is None else batch.labels[own]
    return Batch(batch.images[own], ids[own], batch.crops[own], labels)


def eval_transform_of(encoder: Encoder, images: ImageSource) -> EvalTransform:
    """The transform for testing at the size and with the normalisation of an encoder.

    Images that their source wants whole are squeezed into that size; others lose their border.
    """
    height, width = encoder.image_size
    ratio = resize_ratio_of(images)
    return EvalTransform((height, width), resize_ratio=ratio, mean=encoder.mean, std=encoder.std)


def resize_ratio_of(images: ImageSource) -> float | None:
    """How far images are resized beyond the crop for testing; None where they stay whole."""
    return None if images.whole else RESIZE_RATIO


def frozen_features(
    encoder: Encoder, part: Part, view: View, compute: Compute, *, title: str = "features"
) -> Features:
    """The features of a part of a source, from the cache where it has them.

    Raises:
        UserError: If the encoder cannot be read that way.
    """
    view.check(encoder)
    if compute.cache is None:
        return _extract(encoder, part, view, compute, title)
    path = compute.cache / f"{feature_key(encoder, part, view, compute)}.safetensors"
    features = _load(path)
    if not ranks.agreed(features is not None):
        features = _extract(encoder, part, view, compute, title)
        if ranks.is_first():
            _store(features, path)
    return cast(Features, features)


def feature_key(encoder: Encoder, part: Part, view: View, compute: Compute) -> str:
    """A hash of everything the features depend on: weights, architecture, images, transform, versions."""
    description = {
        "encoder": encoder.arguments(),
        "transform": specs.describe(eval_transform_of(encoder, part.images)),
        "data": specs.describe(part.data),
        "split": part.split,
        "files": [_stamp(path) for path in source_files(part.images)],
        "fingerprint": part.images.fingerprint,
        "num_images": len(part.images),
        "view": vars(view),
        "device": torch.device(compute.device).type,
        "precision": compute.precision,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "timm")},
    }
    digest = hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16)
    digest.update(weights_hash(encoder).encode())
    return digest.hexdigest()


def weights_hash(network: nn.Module) -> str:
    """A hash of all parameters and buffers, with names, shapes and types."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def source_files(images: ImageSource) -> list[Path]:
    """The file of every image, where the source has a method ``path(index)``; else nothing."""
    path = getattr(images, "path", None)
    return [path(index) for index in range(len(images))] if path else []


def _stamp(path: Path) -> tuple[str, int, int]:
    """Name, size and time of change; -1 for a file that is not there, which another image replaces."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return str(path), -1, -1
    return str(path), stat.st_size, stat.st_mtime_ns


def _extract(encoder: Encoder, part: Part, view: View, compute: Compute, title: str) -> Features:
    """Every rank encodes its share; all get the features of all."""
    encoder = encoder.to(compute.device)
    share = ranks.share_of(len(part.images), compute.batch_size)
    values, ids, labels = [], [], []
    with frozen(encoder, compute):
        transform = eval_transform_of(encoder, part.images)
        for batch in part_batches(part, transform, compute, title, among=share):
            tokens = encoder.encode(batch.images.to(compute.device), blocks=view.blocks)
            values.append(view.pool(tokens).cpu())
            ids.append(batch.sample_ids)
            labels.append(batch.labels)
    known = [label for label in labels if label is not None]
    joined = [ranks.joined_rows(torch.cat(rows) if rows else None) for rows in (values, ids, known)]
    return Features(cast(Tensor, joined[0]), cast(Tensor, joined[1]), joined[2])


def _store(features: Features, path: Path) -> None:
    tensors = {name: value for name, value in vars(features).items() if value is not None}
    with replace_file(path) as handle:
        handle.write(safetensors.torch.save(tensors))


def _load(path: Path) -> Features | None:
    """Cached features; None where there are none, or a file that is none of ours (then reported)."""
    if not path.exists():
        return None
    try:
        tensors: dict[str, Any] = safetensors.torch.load_file(path)
        return Features(**tensors)
    except (SafetensorError, TypeError) as error:
        log.warning("cannot read the cached features %s (%s); extracting them again", path, error)
        return None
