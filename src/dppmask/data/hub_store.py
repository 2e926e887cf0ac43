"""Where the splits of a data set lie: on the hub, in local files, or in what ``save_to_disk`` wrote.

Nothing downloaded is executed: since its version 4, ``datasets`` runs no loading scripts.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dppmask.data.hub_rows import ArrowRows, Rows, ShardRows
from dppmask.data.hub_shards import Columns, open_shards, shard_columns
from dppmask.errors import UserError, nearest

DEFAULT_LABEL = "label"  # alone among the columns, it need not be there
READERS = {".parquet": "parquet", ".tar": "webdataset"}  # of files given by name or pattern
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
INDEX_FOLDER = "dppmask-shards"


@dataclass(frozen=True)
class Address:
    """What is to be opened; the arguments of :class:`~dppmask.data.hub.HubDataset` of these names.

    Attributes:
        path: Name on the hub, folder, file or pattern.
        name: Which configuration.
        revision: Which version.
        train_split: The split of what has no splits.
        cache_dir: Folder of the cache.
    """

    path: str
    name: str | None
    revision: str | None
    train_split: str
    cache_dir: str | None

    @property
    def is_saved(self) -> bool:
        """Whether it is a folder that ``save_to_disk`` wrote."""
        return any((self.local / name).is_file() for name in SAVED)

    @property
    def local(self) -> Path:
        """Where it would be, if it is on this machine."""
        return Path(self.path).expanduser()

    def arguments(self) -> dict[str, Any]:
        """The same for ``load_dataset``.

        Raises:
            UserError: If it is local, and not there, or has no configurations or versions.
        """
        arguments = {"cache_dir": self.cache_dir}
        reader = READERS.get(self.local.suffix)
        if reader is None and not self.local.exists():
            if self.path.startswith((".", "/", "~")):
                raise UserError(
                    f"path must be a folder, a file or a name on the hub, but {self.path} is none"
                )
            return arguments | {"path": self.path, "name": self.name, "revision": self.revision}
        if self.revision is not None:
            raise UserError(f"revision is for names on the hub, but {self.path} is local; leave revision out")
        if reader is None:
            return arguments | {"path": str(self.local), "name": self.name}
        if self.name is not None:
            raise UserError(f"name chooses a part of a data set, but {self.path} is a file; leave name out")
        return arguments | {"path": reader, "data_files": {self.train_split: str(self.local)}}


class Store(ABC):
    """Named splits.

    Attributes:
        splits: Their names.
    """

    splits: Sequence[str]

    @abstractmethod
    def rows(self, split: str, image: str, label: str | None) -> Rows:
        """Open a split and choose its columns.

        Raises:
            UserError: If it cannot be read, or a column is missing or holds something else.
        """


class Saved(Store):
    """A folder that ``save_to_disk`` wrote."""

    def __init__(self, address: Address) -> None:
        import datasets

        with one_line(address.path):
            loaded = datasets.load_from_disk(str(address.local))
        self._tables = loaded if isinstance(loaded, dict) else {address.train_split: loaded}
        self.splits = [str(split) for split in self._tables]

    def rows(self, split: str, image: str, label: str | None) -> Rows:
        table = self._tables[split]
        return ArrowRows(table, choose_columns(table.column_names, image, label))


class Loaded(Store):
    """What ``load_dataset`` finds, in Arrow files of its cache."""

    def __init__(self, address: Address) -> None:
        import datasets

        self.address = address
        with one_line(address.path):
            builder = datasets.load_dataset_builder(**address.arguments())
        self.splits = [str(split) for split in builder.config.data_files or builder.info.splits or ()]

    def rows(self, split: str, image: str, label: str | None) -> Rows:
        import datasets

        with one_line(self.address.path):
            table = datasets.load_dataset(**self.address.arguments(), split=split)
        return ArrowRows(table, choose_columns(table.column_names, image, label))


class Streamed(Store):
    """The shards that ``load_dataset`` would load, read where they lie."""

    def __init__(self, address: Address, *, window: int, lanes: int) -> None:
        import datasets

        self.window, self.lanes = window, lanes
        with one_line(address.path):
            builder = datasets.load_dataset_builder(**address.arguments())
        self._urls = {str(split): list(urls) for split, urls in (builder.config.data_files or {}).items()}
        self._index = Path(address.cache_dir or datasets.config.HF_DATASETS_CACHE) / INDEX_FOLDER
        self.splits = list(self._urls)

    def rows(self, split: str, image: str, label: str | None) -> Rows:
        urls = self._urls[split]
        columns = choose_columns(shard_columns(urls[0]), image, label)
        shards = open_shards(urls, columns, self._index)
        return ShardRows(shards, window=self.window, lanes=self.lanes)


def choose_columns(available: Sequence[str], image: str, label: str | None) -> Columns:
    """The two columns that are read; none for labels if that by the default name is not there.

    Raises:
        UserError: If another is not there.
    """
    if label == DEFAULT_LABEL and label not in available:
        label = None
    for option, column in (("image_column", image), ("label_column", label)):
        if column is not None and column not in available:
            raise UserError(f"{option}: there is no column {column}; {nearest(column, available)}")
    return Columns(image, label)


@contextmanager
def one_line(path: str) -> Iterator[None]:
    """Tell in one line why a data set cannot be had.

    Raises:
        UserError: In place of any other exception: besides its own, ``datasets`` lets through those of
            servers, file systems and Arrow.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error  # what failed, rather than what was being done
        raise UserError(f"path: cannot open {path}: {' '.join(str(cause).split())}") from error
