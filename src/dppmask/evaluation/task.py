"""A labelled source to learn from and to be tested on, and what an encoder makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dppmask.errors import UserError
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.features import Features, View, frozen_features
from dppmask.evaluation.metrics import labels_without_positives
from dppmask.models.encoder import Encoder


@dataclass(frozen=True, eq=False)
class Task:
    """Both parts of a labelled source, and how their images become vectors.

    Attributes:
        train: The part to learn from.
        val: The part to be tested on.
        class_names: Names of the classes or labels.
        view: How tokens become one vector.
        compute: Where to compute.

    Raises:
        UserError: If the parts have different classes.
    """

    train: Part
    val: Part
    class_names: list[str]
    view: View
    compute: Compute

    def __post_init__(self) -> None:
        held_out = self.val.images.class_names
        if held_out is not None and list(held_out) != list(self.class_names):
            raise UserError(
                f"classes must agree, but train has {_some(self.class_names)}, val {_some(held_out)}"
            )

    @property
    def num_classes(self) -> int:
        """C classes, or L labels."""
        return len(self.class_names)

    def encode(self, encoder: Encoder, *, title: str = "features") -> "Encoded":
        """The features of both parts.

        Raises:
            UserError: If the encoder cannot be read that way, or images have no labels after all.
        """
        parts = (self.train, self.val)
        train, val = (frozen_features(encoder, part, self.view, self.compute, title=title) for part in parts)
        return Encoded(self, encoder, train, val, train.require_labels(), val.require_labels(), title)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A task as an encoder sees it.

    Attributes:
        task: The task.
        encoder: The encoder.
        train: Features of the training part.
        val: Features of the validation part.
        train_labels: int64 ``[n]`` or bool ``[n, L]``.
        val_labels: The same of the validation part.
        title: What this is, for progress.
    """

    task: Task
    encoder: Encoder
    train: Features
    val: Features
    train_labels: Tensor
    val_labels: Tensor
    title: str = "features"

    @property
    def notes(self) -> list[str]:
        """Says what could not be read, and which labels mAP scores 0 because no validation image has them."""
        notes = self.train.notes(self.task.train) + self.val.notes(self.task.val)
        if self.val_labels.ndim > 1:
            notes += labels_without_positives(self.task.class_names, self.val_labels)
        return notes


def _some(class_names: Sequence[str]) -> str:
    return f"{len(class_names)} ({', '.join(class_names[:5])}{', …' if len(class_names) > 5 else ''})"
