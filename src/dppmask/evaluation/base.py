"""What is evaluated, how, and what comes out: plain values that every protocol shares."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from dppmask.data.base import ImageSource, Split
from dppmask.errors import UserError
from dppmask.models.encoder import Encoder

Precision = Literal["32", "bf16"]


@dataclass(frozen=True)
class Compute:
    """Where and how fast images are encoded. Nothing here changes a result beyond rounding.

    Attributes:
        device: A torch device.
        batch_size: Images per forward pass.
        num_workers: Processes that load images.
        precision: "32", or "bf16" for autocast.
        cache: Folder for extracted features; None = keep none.

    Raises:
        UserError: If an attribute is outside its range.
    """

    device: str = "cpu"
    batch_size: int = 64
    num_workers: int = 0
    precision: Precision = "32"
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.num_workers < 0:
            raise UserError(f"num_workers must be at least 0, got {self.num_workers}")
        if self.precision not in ("32", "bf16"):
            raise UserError(f"precision must be '32' or 'bf16', got {self.precision!r}")

    def autocast(self) -> torch.autocast:
        """The context in which images are encoded."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16")


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated.

    Attributes:
        encoder: The encoder, or None for mask strategies that need no network.
        run: The run folder it comes from, or None.
        description: Plain data that says what it is.
        compute: Where its features are computed.
    """

    encoder: Encoder | None = None
    run: Path | None = None
    description: dict[str, Any] = field(default_factory=dict)
    compute: Compute = Compute()

    def require_encoder(self, protocol: str) -> Encoder:
        """The encoder.

        Raises:
            UserError: If there is none.
        """
        if self.encoder is None:
            raise UserError(f"{protocol} evaluates an encoder; pass a run folder, a timm name or an Encoder")
        return self.encoder


@dataclass(frozen=True)
class Result:
    """What a protocol found, as plain data.

    Attributes:
        protocol: Name of the protocol.
        metrics: Name → value; shares and accuracies are in [0, 1].
        standard_errors: Of those metrics that have one.
        baselines: Name of the baseline → its metrics, under the same names.
        tables: Name → rows of plain data, for figures.
        timings: Name → measurement in the unit its name ends with. Alone among the numbers here, they differ
            from call to call.
        notes: What was left out or decided, in sentences.
    """

    protocol: str
    metrics: dict[str, float]
    standard_errors: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Protocol(ABC):
    """A way to evaluate. The constructor takes plain keyword arguments and keeps them under their names.

    Attributes:
        scenes: Which task of the built-in scenes suits it, where no data are given.
        timed: Whether times are what it measures, so that nothing should run beside it.
    """

    scenes: Literal["single", "multi"] = "single"
    timed: bool = False

    @abstractmethod
    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """Evaluate; equal arguments give equal results.

        Args:
            subject: What is evaluated.
            data: A source whose parts are opened with ``split``.
            seed: Of whatever is random: initial weights, augmentation, masks.

        Raises:
            UserError: If the subject or the data do not suit the protocol.
        """

    @property
    def name(self) -> str:
        """The class name."""
        return type(self).__name__


@dataclass(frozen=True, eq=False)
class Part:
    """One opened part of a source.

    Attributes:
        data: The source it was opened from.
        split: Its name.
        images: The part itself.
    """

    data: ImageSource
    split: Split
    images: ImageSource

    @classmethod
    def open(cls, data: ImageSource, split: Split) -> "Part":
        """Open a part.

        Raises:
            UserError: If the source has no such part, or nothing is in it.
        """
        images = data.split(split)
        if not len(images):
            raise UserError(f"the {split} part has no images to evaluate on; hold some out")
        return cls(data, split, images)

    def require_classes(self, protocol: str) -> list[str]:
        """Names of the classes or labels.

        Raises:
            UserError: If the images are unlabelled.
        """
        if not self.images.class_names:
            raise UserError(
                f"{protocol} needs labelled images, but this source has no classes; use one folder per class"
            )
        return self.images.class_names

    def require_single_label(self, protocol: str, *, instead: str) -> list[str]:
        """Names of the classes of a source with one class an image.

        Raises:
            UserError: If images carry several labels or none.
        """
        if self.images.multi_label:
            raise UserError(
                f"{protocol} needs one class per image, but these carry several labels; use {instead}"
            )
        return self.require_classes(protocol)

    def require_several_labels(self, protocol: str, *, instead: str) -> list[str]:
        """Names of the labels of a source whose images may carry several.

        Raises:
            UserError: If images have one class each, or none.
        """
        names = self.require_classes(protocol)
        if not self.images.multi_label:
            raise UserError(
                f"{protocol} needs images with several labels, but these have one class each; use {instead}"
            )
        return names


def check_least(name: str, value: int | None, least: int, why: str = "") -> None:
    """Raise UserError if an option is below the least value that makes sense, ``why``; None is no limit."""
    if value is not None and value < least:
        raise UserError(f"{name} must be at least {least}{why and ' ' + why}, got {value}")
