"""Images that may turn out to be unreadable, and what takes their place."""

import itertools
import logging
from abc import abstractmethod

import torch

from dppmask.data.base import ImageSource, Sample
from dppmask.data.decode import UnreadableImageError
from dppmask.errors import UserError

log = logging.getLogger(__name__)


class ReadableImages(ImageSource):
    """An opened part in which an image that cannot be read gives the next one that can.

    Which one that is depends on the images alone, so batches keep their shape and a training can be repeated.
    Each unreadable image is named in the log once, and counted, by all workers together.

    Args:
        num_images: How many there are.
        place: Where they lie, for messages.
    """

    def __init__(self, num_images: int, place: str) -> None:
        self.place = place
        self._unreadable = torch.zeros(num_images, dtype=torch.bool).share_memory_()

    @abstractmethod
    def read(self, index: int) -> Sample:
        """The sample at exactly this index, from 0.

        Raises:
            UnreadableImageError: If it cannot be read.
        """

    @property
    def num_unreadable(self) -> int:  # type: ignore[override]
        """How many images could not be read so far, in this process and its workers."""
        return int(self._unreadable.sum())

    def __len__(self) -> int:
        return len(self._unreadable)

    def __getitem__(self, index: int) -> Sample:
        """The sample at ``index``, or the next readable one after it, cyclically; ``sample_id`` tells which.

        Raises:
            UserError: If none can be read.
        """
        start = range(len(self))[index]
        reason: UnreadableImageError | None = None
        for position in itertools.chain(range(start, len(self)), range(start)):
            if not self._unreadable[position]:
                try:
                    return self.read(position)
                except UnreadableImageError as error:
                    reason = reason or error
                    self._unreadable[position] = True
                    log.warning("image left out, the next readable one takes its place: %s", error)
        raise UserError(
            f"none of the {len(self)} images in {self.place} can be read "
            f"({reason or 'the log names the reasons'})"
        )
