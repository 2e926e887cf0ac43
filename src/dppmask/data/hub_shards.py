"""Shards whose rows are read a block at a time: row groups of parquet files, runs of samples of tar files.

How many rows a shard has, and where they lie, is found out once and kept in a small JSON file, with a stamp
of the shard. A parquet file tells it in its footer; a tar file has to be gone through, from header to header.
"""

import hashlib
import itertools
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from dppmask.data.decode import UnreadableImageError
from dppmask.data.hub_labels import LabelColumn, check_images
from dppmask.errors import UserError
from dppmask.files import write_text

INDEX_VERSION = 1  # raise it whenever an index says something else
OPENED_AT_A_TIME = 16  # shards; what takes time is waiting for answers
TAR_BLOCK = 64  # samples of a tar file that are read at once

Row = tuple[bytes | None, Any]  # the file of an image, if there is one, and the label


class Columns(NamedTuple):
    """Which columns of a table, or kinds of members of a tar file, are read."""

    image: str
    label: str | None


class Shard(ABC):
    """One file.

    Args:
        url: Where it lies, as fsspec understands it.
        columns: What is read.
        index: What :meth:`index` found.

    Attributes:
        lengths: Rows of each block.
        labels: What labels there are; None where none are read.
        stamp: Another one if the file has changed.
    """

    suffix: ClassVar[str]

    def __init__(self, url: str, columns: Columns, index: dict[str, Any]) -> None:
        self.url = url
        self.columns = columns
        self.stamp: str = index["stamp"]
        self.lengths: list[int] = index["lengths"]
        self.labels = None if index["labels"] is None else LabelColumn(**index["labels"])

    @staticmethod
    @abstractmethod
    def column_names(file: Any) -> list[str]:
        """What columns an open file has."""

    @staticmethod
    @abstractmethod
    def index(file: Any, columns: Columns) -> dict[str, Any]:
        """Plain data about an open file: ``lengths``, ``labels``, and where things lie."""

    @abstractmethod
    def read(self, block: int) -> list[Row]:
        """The rows of a block.

        Raises:
            UnreadableImageError: If the file is damaged there.
        """


class ParquetShard(Shard):
    """A parquet file; its blocks are its row groups."""

    suffix = ".parquet"

    @staticmethod
    def column_names(file: Any) -> list[str]:
        import pyarrow.parquet as pq

        return pq.ParquetFile(file).schema_arrow.names

    @staticmethod
    def index(file: Any, columns: Columns) -> dict[str, Any]:
        import pyarrow.parquet as pq
        from datasets import Features

        parquet = pq.ParquetFile(file)
        features = Features.from_arrow_schema(parquet.schema_arrow)
        for name in columns:
            if name is not None and name not in features:
                raise UserError(f"there is no column {name}")
        check_images(features[columns.image], columns.image)
        labels = None
        if columns.label is not None:
            table = parquet.read([columns.label], use_threads=False)
            labels = asdict(LabelColumn.of_table(table, columns.label, features[columns.label]))
        groups = range(parquet.metadata.num_row_groups)
        lengths = [parquet.metadata.row_group(group).num_rows for group in groups]
        return {"lengths": lengths, "labels": labels}

    def read(self, block: int) -> list[Row]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [name for name in self.columns if name is not None]
        try:
            with _open(self.url) as file:
                table = pq.ParquetFile(file).read_row_group(block, names, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise UnreadableImageError(f"row group {block} of {self.url}: {error}") from error
        images = [_file_of(value) for value in table.column(self.columns.image).to_pylist()]
        if self.columns.label is None:
            return [(image, None) for image in images]
        return list(zip(images, table.column(self.columns.label).to_pylist(), strict=True))


class TarShard(Shard):
    """A tar file of samples, as WebDataset writes them; its blocks are runs of them.

    Neighbours that share everything before the first dot of their names are a sample; the rest of the name
    says what each of them is, as a column does. Labels are texts: a number, or a list of them in brackets.
    """

    suffix = ".tar"

    def __init__(self, url: str, columns: Columns, index: dict[str, Any]) -> None:
        super().__init__(url, columns, index)
        self._images: list[tuple[int, int]] = index["images"]  # first byte, and the one after the last
        self._labels: list[Any] = index["values"]

    @staticmethod
    def column_names(file: Any) -> list[str]:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            return list(next(_samples(tar), {}))

    @staticmethod
    def index(file: Any, columns: Columns) -> dict[str, Any]:
        images, values = [], []
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for sample in _samples(tar):
                image = sample.get(columns.image)
                images.append((image.offset_data, image.offset_data + image.size) if image else (0, 0))
                values.append(_label(tar, sample.get(columns.label)) if columns.label is not None else None)
        labels = None if columns.label is None else asdict(LabelColumn.of_rows(values))
        starts = range(0, len(images), TAR_BLOCK)
        lengths = [min(TAR_BLOCK, len(images) - start) for start in starts]
        return {"lengths": lengths, "labels": labels, "images": images, "values": values}

    def read(self, block: int) -> list[Row]:
        from fsspec.core import url_to_fs

        rows = slice(block * TAR_BLOCK, (block + 1) * TAR_BLOCK)
        places = self._images[rows]
        known = [place for place in places if place[1]]
        first, last = min((a for a, _ in known), default=0), max((b for _, b in known), default=0)
        files, path = url_to_fs(self.url)
        try:
            content = files.cat_file(path, first, last)
        except OSError as error:
            raise UnreadableImageError(f"bytes {first} to {last} of {self.url}: {error}") from error
        images = [content[a - first : b - first] if b else None for a, b in places]
        return list(zip(images, self._labels[rows], strict=True))


SHARDS: dict[str, type[Shard]] = {kind.suffix: kind for kind in (ParquetShard, TarShard)}


def shard_columns(url: str) -> list[str]:
    """The names of the columns of a shard.

    Raises:
        UserError: If it cannot be read.
    """
    with _naming(url), _open(url) as file:
        return _kind(url).column_names(file)


def open_shards(urls: Sequence[str], columns: Columns, cache: Path) -> list[Shard]:
    """Index shards, or look up what was found before.

    Args:
        urls: Where they lie.
        columns: What is to be read.
        cache: Folder for what is found.

    Raises:
        UserError: If one cannot be read, or lacks a column.
    """
    with ThreadPoolExecutor(OPENED_AT_A_TIME) as pool:
        return list(pool.map(partial(_open_shard, columns=columns, cache=cache), urls))


def _open_shard(url: str, columns: Columns, cache: Path) -> Shard:
    from fsspec.core import url_to_fs

    kind = _kind(url)
    with _naming(url):
        files, path = url_to_fs(url)
        stamp = files.ukey(path)
        key = hashlib.blake2b(json.dumps([INDEX_VERSION, url, columns]).encode(), digest_size=16).hexdigest()
        kept = cache / f"{key}.json"
        index = _stored(kept)
        if index is None or index["stamp"] != stamp:
            with _open(url) as file:
                index = {"stamp": stamp, **kind.index(file, columns)}
            write_text(kept, json.dumps(index))
        return kind(url, columns, index)


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # not there yet, or damaged: it is made again
        return None


def _kind(url: str) -> type[Shard]:
    for suffix, kind in SHARDS.items():
        if url.endswith(suffix):
            return kind
    raise UserError(
        f"streaming reads {' and '.join(SHARDS)} files, but the data has {url}; leave streaming out"
    )


def _open(url: str) -> Any:
    import fsspec

    return fsspec.open(url, "rb")


@contextmanager
def _naming(url: str) -> Iterator[None]:
    """Say of which shard there is something to say."""
    try:
        yield
    except Exception as error:  # damaged files and servers make libraries raise almost anything
        raise UserError(f"{url}: {' '.join(str(error).split())}") from error


def _file_of(value: Any) -> bytes | None:
    """The file of an image, which stands alone or beside its name."""
    return value.get("bytes") if isinstance(value, dict) else value


def _samples(tar: tarfile.TarFile) -> Iterator[dict[str, tarfile.TarInfo]]:
    """The members of each sample by their kinds; what is hidden or has no ending belongs to none."""
    files = (member for member in tar if member.isfile())
    named = ((*_key_and_kind(member.name), member) for member in files)
    for key, members in itertools.groupby(named, key=lambda item: item[0]):
        if key:
            yield {kind: member for _, kind, member in members if kind}


def _key_and_kind(name: str) -> tuple[str, str]:
    """``a/b.seg.png`` is the ``seg.png`` of ``a/b``; empty if there is no such thing."""
    folder, slash, last = name.rpartition("/")
    stem, _, kind = last.partition(".")
    return (folder + slash + stem, kind) if stem and kind else ("", "")


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> Any:
    """A whole number, a list of them, or None where the sample has none."""
    if member is None:
        return None
    content = tar.extractfile(member)
    text = b"" if content is None else content.read()
    try:
        label = json.loads(text)
    except ValueError:
        label = None
    if not all(type(item) is int for item in (label if isinstance(label, list) else [label])):
        raise UserError(f"{member.name} must hold a whole number or a list of them, got {text[:40]!r}")
    return label
