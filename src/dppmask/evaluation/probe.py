"""What protocols on frozen features share: both parts of a source, and the baselines beside the result."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from dppmask.data.base import ImageSource
from dppmask.evaluation.base import Part, Protocol, Result, Subject
from dppmask.evaluation.baselines import (
    BASELINES,
    CHANCE,
    RANDOM_ENCODER,
    RAW_PIXELS,
    chance_level,
    check_baselines,
    pixel_votes,
    random_encoder,
)
from dppmask.evaluation.features import Pooling, View
from dppmask.evaluation.metrics import Scored, classification_metrics, errors, values
from dppmask.evaluation.task import Encoded, Task

Tables = dict[str, list[dict[str, Any]]]


class Probe(Protocol):
    """A protocol that learns from frozen features of the training part and is tested once on the other.

    Args:
        pooling: See :class:`~dppmask.evaluation.features.View`.
        blocks: See :class:`~dppmask.evaluation.features.View`.
        baselines: Which of ``offered`` to report beside.

    Attributes:
        several_labels: Whether images may carry several labels.
        offered: Names of the baselines there are.

    Raises:
        UserError: If an argument is outside its range.
    """

    several_labels: bool = False
    offered: tuple[str, ...] = BASELINES

    def __init__(self, *, pooling: Pooling, blocks: int, baselines: Sequence[str] = BASELINES) -> None:
        check_baselines(baselines, self.offered)
        self.pooling = pooling
        self.blocks = blocks
        self.view = View(pooling, blocks)
        self.baselines = tuple(baselines)

    @abstractmethod
    def assess(self, encoded: Encoded, *, seed: int) -> tuple[Scored, Tables]:
        """Learn and test: the metrics with their standard errors, and tables for figures."""

    def assess_pixels(self, encoded: Encoded, *, seed: int) -> Scored:
        """The same metrics by k-NN on raw pixels."""
        return classification_metrics(pixel_votes(encoded), encoded.val_labels, seed=seed)

    def assess_chance(self, encoded: Encoded, found: Scored, *, seed: int) -> dict[str, float]:
        """The same metrics without a look at any image."""
        return dict.fromkeys(found, chance_level(encoded))

    def beside(
        self, encoded: Encoded, found: Scored, *, seed: int
    ) -> dict[str, Callable[[], dict[str, float]]]:
        """How to assess every baseline that is offered."""

        def assess_random() -> Scored:
            fresh = random_encoder(encoded.encoder, seed=seed)
            return self.assess(encoded.task.encode(fresh, title="random encoder"), seed=seed)[0]

        return {
            CHANCE: lambda: self.assess_chance(encoded, found, seed=seed),
            RAW_PIXELS: lambda: values(self.assess_pixels(encoded, seed=seed)),
            RANDOM_ENCODER: lambda: values(assess_random()),
        }

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`."""
        encoder = subject.require_encoder(self.name)
        task = self._open(data, subject)
        encoded = task.encode(encoder)
        found, tables = self.assess(encoded, seed=seed)
        beside = self.beside(encoded, found, seed=seed)
        return Result(
            self.name,
            values(found),
            standard_errors=errors(found),
            baselines={name: beside[name]() for name in self.baselines},
            tables=tables,
            notes=encoded.notes,
        )

    def class_names(self, part: Part) -> list[str]:
        """Names of the classes or labels.

        Raises:
            UserError: If the images are not labelled as this protocol needs them.
        """
        if self.several_labels:
            return part.require_classes(self.name)
        return part.require_single_label(self.name, instead="LinearFast")

    def _open(self, data: ImageSource, subject: Subject) -> Task:
        train, val = Part.open(data, "train"), Part.open(data, "val")
        return Task(train, val, self.class_names(train), self.view, subject.compute)
