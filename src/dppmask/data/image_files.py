"""Image files by index, whatever says which there are; and what becomes of those that cannot be read."""

import logging
import os
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dppmask.data.base import ImageSource, Sample, Split
from dppmask.data.decode import UnreadableImageError, read_image
from dppmask.errors import UserError

log = logging.getLogger(__name__)


class FileSource(ImageSource):
    """Images on disk, in parts. An unsplit source is its training part, opened at first use."""

    @property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        """Of the training part."""
        return self._train.class_names

    def __len__(self) -> int:
        return len(self._train)

    def __getitem__(self, index: int) -> Sample:
        return self._train[index]

    @cached_property
    def _train(self) -> ImageSource:
        return self.split("train")


class ImageFiles(ImageSource):
    """Named image files in a folder: one part of a source.

    A file that cannot be read gives the next one that can; its name is logged once, and counted, by all
    workers together.

    Args:
        folder: Where they lie.
        names: Paths below the folder, at least one.
        listed_in: The file that says which images there are and what they show, if there is one.

    Raises:
        UserError: If none of the files can be read.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, listed_in: Path | None = None) -> None:
        self.folder = folder
        self.listed_in = listed_in
        # Arrays, because every worker would soon own a copy of a long list: counting references writes to it.
        self._names = np.array([os.fsencode(name) for name in names])
        self._unreadable = torch.zeros(len(names), dtype=torch.bool).share_memory_()
        self._read(0)

    @abstractmethod
    def sample(self, position: int, image: Tensor) -> Sample:
        """What is known about an image, with the image.

        Args:
            position: Its index.
            image: uint8 ``[3, H, W]``, as it was read.
        """

    def split(self, name: Split) -> ImageSource:
        """A part has no parts: always raises ``UserError``."""
        raise UserError(f"{self.folder} is opened as one part already; take {name!r} of its source")

    @property
    def num_unreadable(self) -> int:  # type: ignore[override]
        """How many files could not be read so far, in this process and its workers."""
        return int(self._unreadable.sum())

    def path(self, index: int) -> Path:
        """The file behind an index."""
        return self.folder / os.fsdecode(self._names[index])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        """The sample at ``index``, or the next readable one after it, cyclically; ``sample_id`` tells which.

        Raises:
            UserError: If none can be read.
        """
        return self.sample(*self._read(range(len(self))[index]))

    def _read(self, start: int) -> tuple[int, Tensor]:
        """The first image from ``start`` on that can be read, and its index."""
        reason: UnreadableImageError | None = None
        for position in (*range(start, len(self)), *range(start)):
            if not self._unreadable[position]:
                try:
                    return position, read_image(self.path(position))
                except UnreadableImageError as error:
                    reason = reason or error
                    self._report(position, error)
        raise UserError(
            f"none of the {len(self)} images in {self.folder} can be read "
            f"({reason or 'the log names the reasons'})"
        )

    def _report(self, position: int, error: UnreadableImageError) -> None:
        self._unreadable[position] = True
        log.warning("image left out, the next readable one takes its place: %s", error)
