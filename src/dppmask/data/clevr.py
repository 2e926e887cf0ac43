"""CLEVR in its official layout: rendered scenes, labelled with the coloured shapes that stand in them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dppmask.data.base import Sample, Split, check_split
from dppmask.data.image_files import FileSource, ImageFiles
from dppmask.data.json_entries import Entry, fields, json_entries, shortened
from dppmask.data.scene_layout import COLOURS, KIND_NAMES, KINDS, SHAPES
from dppmask.errors import UserError, nearest


class CLEVR(FileSource):
    """Scenes of 3 to 10 objects; 24 labels, ``8 * shape + colour`` present or not, those of ``Scenes``.

    How often a kind of object stands in an image, its size and its material do not count. An unsplit source
    is its training part. Images are tested whole, squeezed into the encoder's input.

    The files are ``scenes/CLEVR_train_scenes.json`` with the images in ``images/train``, and the same for
    ``val``.

    Args:
        root: The folder, CLEVR_v1.0.
    """

    class_names = KIND_NAMES
    multi_label = True
    whole = True

    def __init__(self, root: str) -> None:
        self.root = root

    def split(self, name: Split) -> ImageFiles:
        """Read the scenes of a part.

        Raises:
            UserError: If files are missing or damaged, contradict themselves, or hold no scene.
        """
        check_split(name)
        root = Path(self.root).expanduser()
        images, listed_in = root / "images" / name, root / scenes_name(name)
        if not images.is_dir():
            raise UserError(f"there is no folder {images} with the {name} images of CLEVR; see root")
        return _CLEVRPart(images, listed_in, *read_scenes(listed_in, name))


class _CLEVRPart(ImageFiles):
    """The images of one scenes file."""

    class_names = KIND_NAMES
    multi_label = True
    whole = True

    def __init__(self, folder: Path, listed_in: Path, names: list[str], labels: NDArray[np.bool_]) -> None:
        super().__init__(folder, names, listed_in=listed_in)
        self._labels = labels
        self[0]  # an error now, if nothing here can be read

    def sample(self, position: int, image: Tensor) -> Sample:
        """See :meth:`ImageFiles.sample`."""
        return Sample(image, labels=torch.from_numpy(self._labels[position].copy()), sample_id=position)


def read_scenes(path: Path, name: Split) -> tuple[list[str], NDArray[np.bool_]]:
    """The file name of each scene's image, and its labels, bool ``[n, 24]``.

    Args:
        path: The scenes file.
        name: The part that it must be of.

    Raises:
        UserError: If the file is missing, damaged or of another part, names an image twice, shows what CLEVR
            does not have, or holds no scene.
    """
    names: dict[str, None] = {}
    labels = []
    for entry in json_entries(path):
        if entry.key != "scenes":
            continue
        image, split, objects = fields(path, entry, "image_filename", "split", "objects")
        if not isinstance(image, str) or not isinstance(objects, list):
            raise UserError(
                f"{path}: a scene must have a file name and a list of objects: {shortened(entry.value)}"
            )
        if split != name:
            raise UserError(f"{path} holds scenes of the part {split!r}, not {name}: {image}")
        if image in names:
            raise UserError(f"{path} names the image {image} twice")
        names[image] = None
        labels.append([_kind(path, entry, item) for item in objects])
    if not names:
        raise UserError(f"{path} lists no scenes; it must be a scenes file of CLEVR")
    return list(names), _as_matrix(labels)


def scenes_name(name: Split) -> str:
    """Where the scenes file of a part lies below the root."""
    return f"scenes/CLEVR_{name}_scenes.json"


def _kind(path: Path, entry: Entry, item: Any) -> int:
    """The label of an object."""
    shape, colour = fields(path, entry._replace(key="objects", value=item), "shape", "color")
    for value, choices in ((shape, SHAPES), (colour, tuple(COLOURS))):
        if value not in choices:
            raise UserError(f"{path}: unknown {value!r} in {shortened(item)}; {nearest(str(value), choices)}")
    return KINDS.index((shape, colour))


def _as_matrix(labels: list[list[int]]) -> NDArray[np.bool_]:
    matrix = np.zeros((len(labels), len(KINDS)), dtype=np.bool_)
    for row, present in zip(matrix, labels, strict=True):
        row[present] = True
    return matrix
