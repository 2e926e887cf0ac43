"""Rows of a table by index, still encoded: from Arrow files, or from shards a block at a time."""

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dppmask.data.decode import UnreadableImageError
from dppmask.data.hub_labels import LabelColumn, check_images
from dppmask.data.hub_shards import Columns, Row, Shard


class Rows(ABC):
    """Images as the bytes of their files, and labels, by index.

    Attributes:
        labels: What labels there are; None where rows have none.
        ends: The row after each block that is read at once; None where any row is read as fast as the next.
        fingerprint: Another one if the files have changed.
    """

    labels: LabelColumn | None
    ends: np.ndarray | None = None
    fingerprint: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> tuple[bytes, Any]:
        """Image and label.

        Raises:
            UnreadableImageError: If there is no image, or its file cannot be read.
        """


class ArrowRows(Rows):
    """Rows of a ``datasets.Dataset``.

    Args:
        table: The data set.
        columns: Images, encoded or as names of files, and labels.

    Raises:
        UserError: If a column holds something else.
    """

    def __init__(self, table: Any, columns: Columns) -> None:
        from datasets import Image

        feature = table.features[columns.image]
        check_images(feature, columns.image)
        self.labels = None
        if columns.label is not None:
            stored = table.select_columns([columns.label]).with_format("arrow")[:]
            self.labels = LabelColumn.of_table(stored, columns.label, table.features[columns.label])
        self.fingerprint = _digest(_stamp(file["filename"]) for file in table.cache_files)
        self.columns = columns
        table = table.select_columns([name for name in columns if name is not None]).with_format(None)
        encoded = isinstance(feature, Image)
        self._table = table.cast_column(columns.image, Image(decode=False)) if encoded else table

    def __len__(self) -> int:
        return len(self._table)

    def read(self, index: int) -> tuple[bytes, Any]:
        row = self._table[index]
        image = row[self.columns.image]
        if isinstance(image, dict):
            image = _read_file(image.get("path")) if image["bytes"] is None else image["bytes"]
        if image is None:
            raise UnreadableImageError("there is no image")
        return image, None if self.columns.label is None else row[self.columns.label]


class ShardRows(Rows):
    """Rows of shards, one after the other.

    A block stays in memory until each of its rows has been read once, or there are too many.

    Args:
        shards: The shards; all with labels or none.
        window: Rows that readers mix at a time, and
        lanes: blocks that they read at a time, as in :func:`~dppmask.data.order.blockwise_order`.
    """

    def __init__(self, shards: Sequence[Shard], *, window: int, lanes: int) -> None:
        columns = [shard.labels for shard in shards if shard.labels is not None]
        self.labels = LabelColumn.of_parts(columns) if columns else None
        lengths = np.array([length for shard in shards for length in shard.lengths], dtype=np.int64)
        self._ends = self.ends = np.cumsum(lengths)
        self.fingerprint = _digest(shard.stamp for shard in shards)
        self._places = [(shard, block) for shard in shards for block in range(len(shard.lengths))]
        blocks_of_a_lane = -(-window * len(lengths) // max(1, lanes * len(self))) + 1
        self._keep = lanes * blocks_of_a_lane
        self._blocks: OrderedDict[int, list[Row]] = OrderedDict()  # what was read last stands last
        self._unread: dict[int, int] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, index: int) -> tuple[bytes, Any]:
        block = int(np.searchsorted(self._ends, index, side="right"))
        image, label = self._take(block)[index - int(self._ends[block])]  # from the end of the block
        if image is None:
            raise UnreadableImageError("there is no image")
        return image, label

    def _take(self, block: int) -> list[Row]:
        """The rows of a block, from memory if they are there; one of them counts as read."""
        rows = self._blocks.pop(block, None)
        if rows is None:
            shard, number = self._places[block]
            rows = shard.read(number)
            self._unread[block] = len(rows)
        self._unread[block] -= 1
        if self._unread[block]:
            self._blocks[block] = rows
        if len(self._blocks) > self._keep:
            self._blocks.popitem(last=False)
        return rows

    def __getstate__(self) -> dict[str, Any]:
        """A worker reads for itself."""
        return self.__dict__ | {"_blocks": OrderedDict(), "_unread": {}}


def _read_file(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(str(error)) from error


def _stamp(path: str) -> str:
    """Name, size and time of change."""
    stat = Path(path).stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _digest(stamps: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(stamps).encode(), digest_size=16).hexdigest()
