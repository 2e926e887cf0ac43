"""``dppmask features``: the embeddings of a source of images, written to a file others can read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from dppmask.data.base import ImageSource, Split
from dppmask.errors import UserError
from dppmask.evaluation.base import Compute, Part, Precision
from dppmask.evaluation.features import Features, Pooling, View, frozen_features, source_files
from dppmask.evaluation.run import choose_device, open_subject
from dppmask.files import replace_file
from dppmask.models.encoder import Encoder

SUFFIXES = (".npz", ".safetensors")


def extract(
    run: str | Path | Encoder,
    data: ImageSource,
    out: str | Path,
    *,
    split: Split = "train",
    pooling: Pooling = "cls",
    blocks: int = 1,
    image_size: int | tuple[int, int] | None = None,
    device: str = "auto",
    batch_size: int = 64,
    num_workers: int = 0,
    precision: Precision = "32",
) -> Path:
    """Write one embedding per image, with labels and file names, in the order of the data.

    The file holds ``features`` float32 ``[n, D]``, ``sample_ids`` int64 ``[n]``, ``labels`` where there are
    any, and ``names``: the file of each image, or its index. In a ``.safetensors`` file the names are a JSON
    list in the metadata. Unreadable images are left out.

    Args:
        run: A run, a folder with an encoder, a file of official MAE or timm weights, or a timm name.
        data: The images.
        out: The file to write: *.npz or *.safetensors.
        split: Which part of the data; an unlabelled folder is all "train" unless some was held out.
        pooling: The class token, the mean of the patch tokens, or both side by side.
        blocks: How many of the last blocks contribute, side by side.
        image_size: Size to encode, if not the one trained on.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ….
        batch_size: Images per forward pass.
        num_workers: Loader processes.
        precision: "32", or "bf16" for autocast.

    Note:
        In Python, ``run`` may also be an :class:`~dppmask.models.encoder.Encoder`, which has its size, and
        stays where it is if ``device`` is "auto".

    Returns:
        The file written.

    Raises:
        UserError: If the encoder cannot be loaded or read that way, or the file has another ending.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise UserError(f"out must end with {' or '.join(SUFFIXES)}, got {out.name!r}")
    compute = Compute(choose_device(device, run), batch_size, num_workers, precision)
    subject = open_subject(run, compute, image_size=image_size)
    part = Part.open(data, split)
    features = frozen_features(
        subject.require_encoder("features"), part, View(pooling, blocks), subject.compute
    )
    write_features(out, features, image_names(part.images, features))
    return out


def image_names(images: ImageSource, features: Features) -> list[str]:
    """The file of each image, where the source has files, else its index."""
    files = source_files(images)
    return [str(files[i] if files else i) for i in features.sample_ids.tolist()]


def write_features(out: Path, features: Features, names: list[str]) -> None:
    """Write ``.npz`` or ``.safetensors``, by the ending of ``out``."""
    tensors = {"features": features.values, "sample_ids": features.sample_ids}
    if features.labels is not None:
        tensors["labels"] = features.labels
    with replace_file(out) as handle:
        if out.suffix == ".safetensors":
            handle.write(safetensors.torch.save(tensors, metadata={"names": json.dumps(names)}))
            return
        arrays: dict[str, Any] = {name: value.numpy() for name, value in tensors.items()}
        np.savez(handle, names=np.array(names), **arrays)
