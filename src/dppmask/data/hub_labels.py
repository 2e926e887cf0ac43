"""What the columns of a table mean: an image; one class a row, several, or none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dppmask.data.base import Sample
from dppmask.errors import UserError


@dataclass(frozen=True)
class LabelColumn:
    """The labels of many rows, summed up.

    Attributes:
        several: Whether each row has a list of them.
        lowest: The smallest that occurs; None if none does.
        highest: The largest that occurs; None if none does.
        missing: How many are not there. A list may be empty, but not missing.
        names: Of the classes, where the table knows them.
    """

    several: bool
    lowest: int | None
    highest: int | None
    missing: int = 0
    names: list[str] | None = None

    @classmethod
    def of_table(cls, table: Any, column: str, feature: Any) -> "LabelColumn":
        """Sum up a column of an Arrow table.

        Raises:
            UserError: If it holds something else than classes.
        """
        import pyarrow.compute as pc

        names, several = _meaning(feature, column)
        values = table.column(column)
        missing = values.null_count
        if several:
            values = pc.list_flatten(values)
            missing += values.null_count
        ends = pc.min_max(values)
        return cls(several, ends["min"].as_py(), ends["max"].as_py(), missing, names)

    @classmethod
    def of_rows(cls, labels: Sequence[int | list[int] | None]) -> "LabelColumn":
        """Sum up labels one by one."""
        known = [label for label in labels if label is not None]
        several = any(isinstance(label, list) for label in known)
        flat = [item for label in known for item in (label if isinstance(label, list) else [label])]
        missing = sum(label is None for label in labels)
        return cls(several, min(flat, default=None), max(flat, default=None), missing)

    @classmethod
    def of_parts(cls, parts: Iterable["LabelColumn"]) -> "LabelColumn":
        """Sum up what has been summed up in parts."""
        parts = list(parts)
        return cls(
            any(part.several for part in parts),
            min((part.lowest for part in parts if part.lowest is not None), default=None),
            max((part.highest for part in parts if part.highest is not None), default=None),
            sum(part.missing for part in parts),
            parts[0].names,
        )

    def classes(self, place: str) -> list[str]:
        """Names of the classes; numbers, where the table does not name them.

        Raises:
            UserError: If a label is missing, or outside the names.
        """
        numbers = [str(label) for label in range((self.highest or 0) + 1)]
        names = numbers if self.names is None else self.names
        self.check(names, place)
        return names

    def check(self, classes: list[str], place: str) -> None:
        """Whether every row has a label, and each is one of these classes, under the same name.

        Raises:
            UserError: If not.
        """
        way_out = "mend the data, or set label_column to null to go without labels"
        if self.missing:
            raise UserError(f"{place} has {self.missing} rows without a label; {way_out}")
        if self.names is not None and self.names != classes:
            raise UserError(f"{place} names other classes than the training images do; {way_out}")
        for label in (self.lowest, self.highest):
            if label is not None and not 0 <= label < len(classes):
                raise UserError(
                    f"{place} has the label {label}, but labels must be in [0, {len(classes) - 1}]; {way_out}"
                )


def labelled(image: torch.Tensor, stored: Any, num_classes: int, index: int, *, several: bool) -> Sample:
    """A sample whose label is what is stored: a class, or several."""
    if not several:
        return Sample(image, label=stored, sample_id=index)
    labels = torch.zeros(num_classes, dtype=torch.bool)
    labels[stored] = True
    return Sample(image, labels=labels, sample_id=index)


def check_images(feature: Any, column: str) -> None:
    """Whether a column holds encoded images, alone or beside their names.

    Raises:
        UserError: If not.
    """
    from datasets import Image, Value

    alone = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
    beside = isinstance(feature, dict) and "bytes" in feature
    if not (alone or beside or isinstance(feature, Image)):
        raise UserError(
            f"image_column {column} must hold images, or the bytes of their files, but it holds {feature}"
        )


def _meaning(feature: Any, column: str) -> tuple[list[str] | None, bool]:
    """The names of the classes, if they have some, and whether each row has several."""
    from datasets import ClassLabel, LargeList, List, Value

    several = isinstance(feature, List | LargeList)
    item = feature.feature if several else feature
    if isinstance(item, ClassLabel):
        return list(item.names), several
    if isinstance(item, Value) and item.dtype.startswith(("int", "uint")):
        return None, several
    raise UserError(
        f"label_column {column} must hold classes, whole numbers or lists of them, but it holds {feature}; "
        "set label_column to another column, or to null"
    )
