"""COCO's instances JSON: which labels every image has, and where its objects are."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dppmask.data.coco_masks import fill
from dppmask.data.json_entries import Entry, fields, json_entries, read_entry, shortened
from dppmask.errors import UserError, short_reason


@dataclass(frozen=True, eq=False)
class Annotations:
    """What the file says, without its outlines: these are read again when they are asked for.

    Attributes:
        path: The file.
        class_names: Of the categories, in the order of the file.
        names: File name of each image.
        sizes: int64 ``[n, 2]``, height and width of each image.
        labels: bool ``[n, L]``, which categories have an annotation in each image, crowds included.
        spans: int64 ``[a, 2]``, first and last byte of the annotations that are no crowds, image by image.
        categories: int64 ``[a]``, the category of each of these annotations, as a column of ``labels``.
        first: int64 ``[n + 1]``, the first of each image's ``spans``.
    """

    path: Path
    class_names: list[str]
    names: list[str]
    sizes: NDArray[np.int64]
    labels: NDArray[np.bool_]
    spans: NDArray[np.int64]
    categories: NDArray[np.int64]
    first: NDArray[np.int64]

    def object_labels(self, index: int) -> list[int]:
        """The category of each object of an image."""
        return self.categories[self.first[index] : self.first[index + 1]].tolist()

    def objects(self, index: int) -> Tensor:
        """The pixels of each object of an image, bool ``[num_objects, H, W]``; crowds are no objects.

        Raises:
            UserError: If an outline cannot be understood.
        """
        height, width = self.sizes[index].tolist()
        masks = np.zeros((self.first[index + 1] - self.first[index], height, width), dtype=np.bool_)
        with self.path.open("rb") as handle:
            for number, (start, end) in enumerate(self.spans[self.first[index] : self.first[index + 1]]):
                annotation = read_entry(handle, int(start), int(end))
                try:
                    masks[number] = fill(annotation["segmentation"], height, width)
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    raise UserError(
                        f"{self.path}: the segmentation of {shortened(annotation)} cannot be drawn "
                        f"({short_reason(error)})"
                    ) from None
        return torch.from_numpy(masks)


def read_annotations(path: Path, *, keep_empty: bool) -> Annotations:
    """Read an instances file.

    Args:
        path: The file.
        keep_empty: Whether to keep images without annotations.

    Raises:
        UserError: If the file is missing, damaged or contradicts itself, or leaves no image.
    """
    contents = _Contents(path)
    for entry in json_entries(path):
        contents.add(entry)
    return contents.annotations(keep_empty=keep_empty)


class _Contents:
    """The numbers of an instances file, in the order in which its entries pass by."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = _Numbered(path, "images")
        self.categories = _Numbered(path, "categories")
        self.sizes = array("q")  # height and width of each image
        self.rows = array("q")  # of each annotation: image id, category id, crowd or not, first and last byte

    def add(self, entry: Entry) -> None:
        """One more entry."""
        if entry.key == "images":
            number, name, *size = fields(self.path, entry, "id", "file_name", "height", "width")
            self.images.add(number, name)
            self._extend(self.sizes, size, entry)
        elif entry.key == "categories":
            self.categories.add(*fields(self.path, entry, "id", "name"))
        elif entry.key == "annotations":
            ids = fields(self.path, entry, "image_id", "category_id")
            crowd = entry.value.get("iscrowd", 0)
            self._extend(self.rows, [*ids, crowd, entry.start, entry.end], entry)

    def annotations(self, *, keep_empty: bool) -> Annotations:
        """Everything by image."""
        for numbered in (self.images, self.categories):
            if not numbered.names:
                raise UserError(f"{self.path} lists no {numbered.key}; it must be an instances file of COCO")
        table = np.array(self.rows, dtype=np.int64).reshape(-1, 5)
        image, category = self.images.positions(table[:, 0]), self.categories.positions(table[:, 1])
        labels = np.zeros((len(self.images.names), len(self.categories.names)), dtype=np.bool_)
        labels[image, category] = True
        kept = np.flatnonzero(labels.any(1) | keep_empty)
        if not len(kept):
            raise UserError(f"{self.path} annotates no image; keep_empty true keeps them without labels")
        objects = np.flatnonzero(table[:, 2] == 0)
        objects = objects[np.argsort(image[objects], kind="stable")]
        counts = np.bincount(image[objects], minlength=len(labels))  # 0 for what is not kept
        return Annotations(
            self.path,
            self.categories.names,
            [self.images.names[position] for position in kept],
            np.array(self.sizes, dtype=np.int64).reshape(-1, 2)[kept],
            labels[kept],
            table[objects, 3:],
            category[objects],
            np.concatenate([[0], counts[kept].cumsum()]),
        )

    def _extend(self, numbers: "array[int]", values: Sequence[Any], entry: Entry) -> None:
        try:
            numbers.extend(values)
        except (TypeError, OverflowError):
            raise UserError(
                f"{self.path}: an entry of {entry.key!r} has a wrong number: {shortened(entry.value)}"
            ) from None


class _Numbered:
    """Names in the order of the file, and the ids by which annotations refer to them.

    Args:
        path: The file, for messages.
        key: Of the list: images or categories.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self.names: list[str] = []
        self._ids: dict[int, int] = {}
        self._known: set[str] = set()

    def add(self, number: Any, name: Any) -> None:
        """One more entry."""
        if not isinstance(number, int) or not isinstance(name, str):
            raise UserError(f"{self.path}: an entry of {self.key!r} has id {number!r} and name {name!r}")
        if number in self._ids:
            raise UserError(f"{self.path}: two {self.key} have the id {number}")
        if name in self._known:
            raise UserError(f"{self.path}: two {self.key} have the name {name!r}")
        self._ids[number] = len(self.names)
        self._known.add(name)
        self.names.append(name)

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the entries with these ids stand."""
        try:
            return np.array([self._ids[number] for number in ids.tolist()], dtype=np.int64)
        except KeyError as error:
            raise UserError(
                f"{self.path}: an annotation refers to id {error.args[0]}, which is not among its {self.key}"
            ) from None
