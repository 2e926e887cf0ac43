"""Data sets of the Hugging Face hub and their formats: parquet, tar shards, image folders, saved tables.

Two ways to read them. By default ``datasets`` keeps a data set in Arrow files, where any row is read as fast
as any other. With ``streaming``, shards are read where they lie. That is no iterator with a position to be
saved: the rows of a shard are counted beforehand (a parquet file tells, a tar file is gone through once), so
they have indices like everything else here. Only the *order* of an epoch differs: blocks of neighbouring rows
are shuffled, and then rows among a few blocks (:mod:`dppmask.data.order`). An epoch is still a permutation
that follows from (seed, epoch), hence the position of a run is one number, nothing is lost or seen twice when
it is resumed, and workers and ranks may come and go. The shuffle buffer of ``datasets``, which promises none
of this, is not used.
"""

import importlib.util
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dppmask.data.base import ImageSource, Sample, Split
from dppmask.data.decode import UnreadableImageError, decode_image
from dppmask.data.hub_labels import labelled
from dppmask.data.hub_rows import Rows
from dppmask.data.hub_store import DEFAULT_LABEL, Address, Loaded, Saved, Store, Streamed
from dppmask.data.order import blockwise_order
from dppmask.data.readable import ReadableImages
from dppmask.errors import UserError, nearest
from dppmask.rng import fold_in


class HubDataset(ImageSource):
    """Images of a data set in a format that ``datasets`` reads.

    The training part is ``train_split``. The held-out part is ``val_split`` where there is such a split, else
    the share ``val_fraction`` of the training images, drawn at random once and for all. An unsplit source is
    its training part.

    Labels are classes by name, or whole numbers from 0, which are then the names; or lists of them, which
    make the images multi-label. Nothing that is downloaded is executed.

    Args:
        path: A name on the hub; a folder of parquet files, tar shards or images; a folder that
            ``save_to_disk`` wrote; or one parquet or tar file, or a pattern that several match.
        name: The configuration, where there are several.
        image_column: The column of images; in tar shards their ending, as "jpg".
        label_column: The column of labels; null to go without. One named "label" may be missing.
        train_split: The split to train on.
        val_split: The split to test on, where there is one.
        val_fraction: Share of the training images to hold out where there is none, from 0 to below 1.
        revision: Branch, tag or commit on the hub.
        streaming: Read parquet files and tar shards where they lie, rather than a copy in the cache; for data
            that is larger than the disk. Images are then shuffled less well.
        window: With ``streaming``, how many images are mixed at a time, and about how many each worker keeps.
        lanes: With ``streaming``, from how many places images are read in turn. No worker reads what another
            has read if this is a multiple of devices x workers x batch_size / 64.
        cache_dir: Folder for downloads and Arrow files; that of ``datasets`` by default.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str | None = None,
        image_column: str = "image",
        label_column: str | None = DEFAULT_LABEL,
        train_split: str = "train",
        val_split: str = "validation",
        val_fraction: float = 0.0,
        revision: str | None = None,
        streaming: bool = False,
        window: int = 4096,
        lanes: int = 8,
        cache_dir: str | None = None,
    ) -> None:
        self.path = path
        self.name = name
        self.image_column = image_column
        self.label_column = label_column
        self.train_split = train_split
        self.val_split = val_split
        self.val_fraction = val_fraction
        self.revision = revision
        self.streaming = streaming
        self.window = window
        self.lanes = lanes
        self.cache_dir = cache_dir
        if not 0.0 <= val_fraction < 1.0:
            raise UserError(f"val_fraction must be in [0, 1), got {val_fraction}")
        for option, value in (("window", window), ("lanes", lanes)):
            if value < 1:
                raise UserError(f"{option} must be at least 1, got {value}")

    def split(self, name: Split) -> "_HubPart":
        """Open a part; what is not in the cache yet is downloaded, unless streamed.

        Raises:
            UserError: If the data cannot be had or read, if a split or column is missing, or a label is none
                of the classes of the training part.
        """
        if name not in ("train", "val"):
            raise UserError(f"split must be train or val, got {name!r}")
        store = self._store()
        self._check_splits(store)
        train = self._rows(store, self.train_split)
        classes = train.labels.classes(f"split {self.train_split} of {self.path}") if train.labels else None
        if name == "val" and self.val_split in store.splits:
            val = self._rows(store, self.val_split)
            if val.labels is None:
                classes = None
            elif classes is not None:
                val.labels.check(classes, f"split {self.val_split} of {self.path}")
            return self._part(val, np.arange(len(val)), classes, self.val_split)
        if name == "val" and self.val_fraction == 0:
            raise UserError(
                f"{self.path} has no split {self.val_split} to test on; name one by val_split "
                f"({', '.join(store.splits)}), or hold images out with val_fraction 0.1"
            )
        held_out = _held_out(len(train), self.val_fraction)
        return self._part(train, np.flatnonzero(held_out == (name == "val")), classes, self.train_split)

    @property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        """Of the training part."""
        return self._train.class_names

    @property
    def multi_label(self) -> bool:  # type: ignore[override]
        """Of the training part."""
        return self._train.multi_label

    def __len__(self) -> int:
        return len(self._train)

    def __getitem__(self, index: int) -> Sample:
        return self._train[index]

    @cached_property
    def _train(self) -> "_HubPart":
        return self.split("train")

    def _store(self) -> Store:
        if importlib.util.find_spec("datasets") is None:
            raise UserError("HubDataset needs the package datasets; pip install 'dppmask[hub]' brings it")
        address = Address(self.path, self.name, self.revision, self.train_split, self.cache_dir)
        if not self.streaming:
            return Saved(address) if address.is_saved else Loaded(address)
        if address.is_saved:
            raise UserError(f"streaming reads shards, and {self.path} is a saved table; leave streaming out")
        return Streamed(address, window=self.window, lanes=self.lanes)

    def _check_splits(self, store: Store) -> None:
        if self.train_split not in store.splits:
            raise UserError(
                f"train_split: {self.path} has no split {self.train_split}; "
                f"{nearest(self.train_split, store.splits)}"
            )
        if self.val_split in store.splits and self.val_fraction > 0:
            raise UserError(
                f"val_fraction is {self.val_fraction}, but split {self.val_split} holds images out already; "
                "set it to 0"
            )

    def _rows(self, store: Store, split: str) -> Rows:
        return store.rows(split, self.image_column, self.label_column)

    def _part(self, rows: Rows, ids: np.ndarray, classes: list[str] | None, split: str) -> "_HubPart":
        place = f"split {split} of {self.path}"
        return _HubPart(rows, ids, classes, place, window=self.window, lanes=self.lanes)


class _HubPart(ReadableImages):
    """Some rows of a table.

    Args:
        rows: The table.
        ids: Which rows, ascending.
        class_names: What labels mean; None: unlabelled.
        place: What a message calls the table.
        window: See :class:`HubDataset`.
        lanes: See :class:`HubDataset`.

    Raises:
        UserError: If there are no rows, or no image can be read.
    """

    def __init__(
        self,
        rows: Rows,
        ids: np.ndarray,
        class_names: list[str] | None,
        place: str,
        *,
        window: int,
        lanes: int,
    ) -> None:
        super().__init__(len(ids), place)
        self.class_names = class_names
        self.multi_label = class_names is not None and rows.labels is not None and rows.labels.several
        self.fingerprint = rows.fingerprint
        self.window = window
        self.lanes = lanes
        self._rows = rows
        self._ids = ids
        if not len(ids):
            raise UserError(f"{place} has no images left; lower val_fraction or add images")
        self[0]

    def split(self, name: Split) -> "_HubPart":
        """A part has no parts: always raises ``UserError``."""
        raise UserError(f"{self.place} is opened as one part already; take {name!r} of the HubDataset")

    def read(self, index: int) -> Sample:
        row = int(self._ids[index])
        try:
            content, label = self._rows.read(row)
        except UnreadableImageError as error:
            raise UnreadableImageError(f"row {row} of {self.place}: {error}") from error
        image = decode_image(content, name=f"row {row} of {self.place}")
        if self.class_names is None:
            return Sample(image, sample_id=index)
        return labelled(image, label, len(self.class_names), index, several=self.multi_label)

    def order(self, generator: torch.Generator) -> Tensor:
        """Uniformly random, or shuffled blocks where rows are read in blocks."""
        if self._rows.ends is None:
            return super().order(generator)
        ends = np.searchsorted(self._ids, self._rows.ends)
        return blockwise_order(ends, window=self.window, lanes=self.lanes, generator=generator)


def _held_out(num_rows: int, fraction: float) -> np.ndarray:
    """Which rows are held out, bool ``[num_rows]``: their share, rounded but at least one; or none."""
    held_out = np.zeros(num_rows, dtype=bool)
    if fraction > 0:
        count = max(1, round(fraction * num_rows))
        held_out[torch.randperm(num_rows, generator=fold_in(0))[:count].numpy()] = True
    return held_out
