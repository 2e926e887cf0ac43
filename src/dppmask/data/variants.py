"""Variants of a labelled data set that keep or change the foreground or the background of its images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from dppmask.data.base import ImageSource, Sample, Split
from dppmask.errors import UserError, nearest

# Names of the Backgrounds Challenge, and what each one shows.
VARIANTS = {
    "original": "unchanged",
    "only_fg": "foreground on black",
    "mixed_same": "background of another image of the same class",
    "mixed_rand": "background of an image of a random class",
    "mixed_next": "background of an image of the next class",
    "no_fg": "foreground black",
    "only_bg_b": "box around the foreground black",
    "only_bg_t": "box around the foreground filled with background",
}
MIXED = ("mixed_same", "mixed_rand", "mixed_next")


class VariantPart(ImageSource):
    """An opened part of one variant; whatever does not need pixels is known without reading them."""

    @abstractmethod
    def label(self, index: int) -> int:
        """The class of the foreground (of what was there, where it is removed)."""

    @abstractmethod
    def foreground(self, index: int) -> str:
        """A name of the foreground, the same in every variant."""

    @abstractmethod
    def background(self, index: int) -> str | None:
        """The name of the foreground that once stood before this background; None = its own."""

    @abstractmethod
    def mask(self, index: int) -> Tensor:
        """Where the foreground is, bool ``[H, W]``."""

    def stem(self, index: int) -> str:
        """The name of the image's file in the layout of the release, without ending."""
        foreground, background = self.foreground(index), self.background(index)
        return foreground if background is None else f"fg_{foreground}_bg_{background}"

    def split(self, name: Split) -> ImageSource:
        """A part has no parts: always raises ``UserError``."""
        raise UserError(f"this is one part already; take {name!r} of the source it came from")


class VariantSource(ImageSource, ABC):
    """A data set in several variants; itself the one named by ``selected``.

    Attributes:
        selected: Which variant this is.
    """

    selected: str = "original"

    @abstractmethod
    def variants(self, split: Split) -> Sequence[str]:
        """The variants there are, in the order of :data:`VARIANTS`."""

    @abstractmethod
    def variant(self, name: str) -> "VariantSource":
        """The same data in another variant.

        Raises:
            UserError: If there is no such variant.
        """

    @abstractmethod
    def split(self, name: Split) -> VariantPart:
        """Open a part of this variant.

        Raises:
            UserError: If there is no such part, or it is incomplete.
        """

    def __len__(self) -> int:
        return len(self._train)

    def __getitem__(self, index: int) -> Sample:
        return self._train[index]

    @cached_property
    def _train(self) -> VariantPart:
        """Opened once: a part may be a walk through folders."""
        return self.split("train")

    def background_only(self, split: Split) -> float | None:
        """How often the background of this variant alone tells the class, where that is known."""
        return None


def check_variant(name: str, known: Sequence[str] = tuple(VARIANTS)) -> None:
    """Raise UserError unless this is the name of a variant."""
    if name not in known:
        raise UserError(f"variant {name!r} does not exist; {nearest(name, known)}")


def background_class(variant: str, label: int, classes: Sequence[int], generator: torch.Generator) -> int:
    """The class of the image whose background a mixed image gets.

    Args:
        variant: One of :data:`MIXED`.
        label: The class of the foreground, one of ``classes``.
        classes: All classes, ascending.
        generator: Draws the class for "mixed_rand", its own among them.
    """
    if variant == "mixed_same":
        return label
    if variant == "mixed_next":
        return classes[(classes.index(label) + 1) % len(classes)]
    return draw(classes, generator)


def draw(items: Sequence[int], generator: torch.Generator) -> int:
    """One of the items."""
    return items[int(torch.randint(len(items), (), generator=generator))]
