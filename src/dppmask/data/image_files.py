"""Image files by index, whatever says which there are."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from dppmask.data.base import ImageSource, Sample, Split
from dppmask.data.decode import read_image
from dppmask.data.readable import ReadableImages
from dppmask.errors import UserError


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


class ImageFiles(ReadableImages):
    """Named image files in a folder: one part of a source.

    Args:
        folder: Where they lie.
        names: Paths below the folder, at least one.
        listed_in: The file that says which images there are and what they show, if there is one.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, listed_in: Path | None = None) -> None:
        super().__init__(len(names), str(folder))
        self.folder = folder
        self.listed_in = listed_in
        # Arrays, because every worker would soon own a copy of a long list: counting references writes to it.
        self._names = np.array([os.fsencode(name) for name in names])

    @abstractmethod
    def sample(self, position: int, image: Tensor) -> Sample:
        """What is known about an image, with the image.

        Args:
            position: Its index.
            image: uint8 ``[3, H, W]``, as it was read.
        """

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Changes with the file that lists the images."""
        if self.listed_in is None:
            return ""
        stat = self.listed_in.stat()
        return f"{self.listed_in} {stat.st_size} {stat.st_mtime_ns}"

    def read(self, index: int) -> Sample:
        """See :meth:`ReadableImages.read`."""
        return self.sample(index, read_image(self.path(index)))

    def split(self, name: Split) -> ImageSource:
        """A part has no parts: always raises ``UserError``."""
        raise UserError(f"{self.folder} is opened as one part already; take {name!r} of its source")

    def path(self, index: int) -> Path:
        """The file behind an index."""
        return self.folder / os.fsdecode(self._names[index])
