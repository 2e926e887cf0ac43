"""The same few pictures as image files, parquet files, tar shards and saved tables."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, disable_progress_bars
from PIL import Image as Pillow
from torch import Tensor

from dppmask.data.hub import HubDataset
from dppmask.rng import fold_seed

disable_progress_bars()  # on stderr, where nobody looks

CLASSES = ["cat", "dog"]
LABELS = {
    "classes": ClassLabel(names=CLASSES),
    "numbers": Value("int64"),
    "several classes": List(ClassLabel(names=CLASSES)),
    "several numbers": List(Value("int32")),
    "words": Value("string"),
}


def picture(number: int, mode: str = "RGB", kind: str = "PNG") -> bytes:
    """The file of a small picture; its first pixel tells its number."""
    noise = np.random.default_rng(fold_seed(0, number)).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    noise[0, 0] = number
    file = io.BytesIO()
    Pillow.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


def odd_pictures() -> list[bytes]:
    """Colour, grey, transparency, palette; and four inks, lossy."""
    return [
        *(picture(i, mode) for i, mode in enumerate(["RGB", "L", "RGBA", "P"])),
        picture(4, "CMYK", "JPEG"),
    ]


def numbers(source: Any) -> list[int]:
    """The numbers of the pictures of a source, in the order of their indices."""
    return [number(source[index].image) for index in range(len(source))]


def number(image: Tensor) -> int:
    return int(image[0, 0, 0])


def table(files: list[bytes | None], labels: list[Any] | None = None, kind: str = "classes") -> Dataset:
    """A table of images, and labels of one of the kinds of ``LABELS``."""
    rows: dict[str, list[Any]] = {"image": [file and {"bytes": file, "path": None} for file in files]}
    features = {"image": Image()}
    if labels is not None:
        rows["label"], features["label"] = labels, LABELS[kind]
    return Dataset.from_dict(rows, features=Features(features))


def write_parquet(folder: Path, *tables: Dataset, split: str = "train", rows_per_group: int = 4) -> Path:
    """One file for each table."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for shard, each in enumerate(tables):
        name = f"{split}-{shard:05}-of-{len(tables):05}.parquet"
        pq.write_table(each.data.table, folder / name, row_group_size=rows_per_group)
    return folder


def write_tar(path: Path, samples: list[dict[str, bytes]]) -> Path:
    """Samples, each by the kinds of its members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index, sample in enumerate(samples):
            for kind, content in sample.items():
                member = tarfile.TarInfo(f"some/{index:06}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def write_folder(folder: Path, files: list[bytes], labels: list[int]) -> Path:
    """Image files in a folder for each class, named in the order given within each."""
    for index, (file, label) in enumerate(zip(files, labels, strict=True)):
        suffix = "png" if file.startswith(b"\x89PNG") else "jpg"
        path = folder / CLASSES[label] / f"{index:06}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
    return folder


def save(folder: Path, **splits: Dataset) -> Path:
    """What ``save_to_disk`` writes."""
    DatasetDict(splits).save_to_disk(folder)
    return folder


def opened(path: Path, **options: Any) -> HubDataset:
    """A source whose cache lies beside the data."""
    place = path if "*" not in path.name else path.parent
    return HubDataset(str(path), **{"cache_dir": str(place.parent / "cache"), **options})


def same_images(one: Any, other: Any) -> bool:
    return all(torch.equal(one[i].image, other[i].image) for i in range(max(len(one), len(other))))
