"""What a data source is: indexed samples with whatever is known about them, and named splits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dppmask.errors import UserError, nearest

Split = Literal["train", "val"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One stored image, before any transform.

    Attributes:
        image: uint8 ``[3, H, W]``.
        label: Class index, or None.
        labels: bool ``[num_labels]`` for multi-label data, or None.
        objects: bool ``[num_objects, H, W]``, the visible pixels of each object, or None.
        sample_id: Index in the source.
    """

    image: Tensor
    label: int | None = None
    labels: Tensor | None = None
    objects: Tensor | None = None
    sample_id: int = 0


class ImageSource(Dataset[Sample], ABC):
    """Indexed images. The constructor only stores; ``split`` opens a part.

    Attributes:
        class_names: Names of the classes (single label) or labels (multi-label); None where images are
            unlabelled.
        multi_label: Whether samples carry ``labels`` instead of ``label``.
        whole: Whether images are tested whole: squeezed into the encoder's input instead of cropped, because
            what they are labelled with may stand at their border.
        num_unreadable: How many images could not be read so far; others took their place.
        fingerprint: Another one if other images are stored, as far as the constructor's arguments and the
            files of a method ``path`` do not tell.
    """

    class_names: list[str] | None = None
    multi_label: bool = False
    whole: bool = False
    num_unreadable: int = 0
    fingerprint: str = ""

    @abstractmethod
    def split(self, name: Split) -> "ImageSource":
        """The part for training or for testing.

        Raises:
            UserError: If this source has no such part.
        """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def order(self, generator: torch.Generator) -> Tensor:
        """The order of the samples in an epoch of training, int64 ``[len]``: uniformly random.

        A source that is slow to read at random may keep neighbours together, but must draw from the generator
        alone and take every index once: workers, ranks and resumed runs all follow this order.
        """
        return torch.randperm(len(self), generator=generator)


def check_split(name: str) -> None:
    """Raise UserError unless this is the name of a part."""
    if name not in get_args(Split):
        raise UserError(f"split must be train or val, got {name!r}; {nearest(name, get_args(Split))}")
