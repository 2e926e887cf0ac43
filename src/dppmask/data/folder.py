"""A folder of images: any depth, any readable format, with or without labels."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from dppmask.data.base import Sample, Split, check_split
from dppmask.data.class_list import read_class_list
from dppmask.data.decode import SUFFIXES
from dppmask.data.image_files import FileSource, ImageFiles
from dppmask.errors import UserError

VAL_FOLDERS = ("val", "validation", "test")


class ImageFolder(FileSource):
    """Images below a folder, in the order of their names.

    The training part is ``root/train`` where that exists, else ``root``; the held-out part is ``root/val``
    (or ``validation``, ``test``) where that exists, else the share ``val_fraction`` of the training images,
    chosen by a hash of their names. An unsplit source is its training part.

    Images are labelled by the first folder below their part if all of them lie in one, and the training part
    has at least two; both parts number the classes alike. A list of ``classes`` leaves only the images of
    these, and numbers them in its own order. Hidden files and folders are left out, links are followed.

    Args:
        root: The folder.
        val_fraction: Share of the images to hold out where there is no folder for that, from 0 to below 1.
        classes: A file with the name of one class folder a line (``#`` starts a comment), or "imagenet100";
            sorted, their positions are the labels. None takes the folders there are.

    Raises:
        UserError: If ``val_fraction`` is out of range.
    """

    def __init__(self, root: str, *, val_fraction: float = 0.0, classes: str | None = None) -> None:
        self.root = root
        self.val_fraction = val_fraction
        self.classes = classes
        if not 0.0 <= val_fraction < 1.0:
            raise UserError(f"val_fraction must be in [0, 1), got {val_fraction}")

    def split(self, name: Split) -> ImageFiles:
        """Look through the folder and open a part of it.

        Raises:
            UserError: If the folder is missing or has no readable image, if there is no such part, if the
                held-out part has a class that the training part has not, or if a listed class is missing.
        """
        check_split(name)
        train_folder, val_folder = self._folders()
        if val_folder is not None and self.val_fraction > 0:
            raise UserError(
                f"val_fraction is {self.val_fraction}, but {val_folder} holds images out already; set it to 0"
            )
        if name == "val" and val_folder is None and self.val_fraction == 0:
            raise UserError(
                f"{self.root} has no folder {', '.join(VAL_FOLDERS)} to test on; "
                "hold images out with val_fraction 0.1"
            )
        listed = None if self.classes is None else read_class_list(self.classes)
        if name == "val" and val_folder is not None:
            return self._held_out(val_folder, train_folder, listed)
        names = _names(train_folder, listed, leave_out=val_folder)
        held_out = hold_out(names, self.val_fraction)
        chosen = [n for n in names if (n in held_out) == (name == "val")]
        return _FolderPart(train_folder, chosen, listed or _training_classes(names))

    def _held_out(self, folder: Path, train_folder: Path, listed: list[str] | None) -> ImageFiles:
        """The part that has a folder of its own."""
        names = _names(folder, listed)
        if listed is not None:
            return _FolderPart(folder, names, listed)
        classes = _training_classes(image_names(train_folder, leave_out=folder))
        return _FolderPart(folder, names, _same_classes(names, classes, folder))

    def _folders(self) -> tuple[Path, Path | None]:
        """Where the training images and the held-out images lie."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            state = "is a file" if root.exists() else "does not exist"
            raise UserError(f"root must be a folder of images, but {self.root} {state}")
        train = root / "train"
        held_out = [root / name for name in VAL_FOLDERS if (root / name).is_dir()]
        return (train if train.is_dir() else root), (held_out[0] if held_out else None)


class _FolderPart(ImageFiles):
    """The images of one part, with the class that each lies in.

    Args:
        folder: Where they lie.
        names: Paths below the folder.
        class_names: The first folder of each name is one of these; None: unlabelled.

    Raises:
        UserError: If there is no name, or none of the files can be read.
    """

    def __init__(self, folder: Path, names: Sequence[str], class_names: list[str] | None) -> None:
        if not names:
            raise UserError(f"{folder} has no images left; lower val_fraction or add images")
        super().__init__(folder, names)
        self.class_names = class_names
        self._labels = None if class_names is None else _labels(names, class_names)
        self[0]  # an error now, if nothing here can be read

    def sample(self, position: int, image: Tensor) -> Sample:
        """See :meth:`ImageFiles.sample`."""
        label = None if self._labels is None else int(self._labels[position])
        return Sample(image, label=label, sample_id=position)


def _names(folder: Path, listed: Sequence[str] | None, *, leave_out: Path | None = None) -> list[str]:
    """Paths of the images of the listed classes, or of all images, relative to a folder."""
    if listed is None:
        return image_names(folder, leave_out=leave_out)
    if missing := [name for name in listed if not (folder / name).is_dir()]:
        named = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UserError(f"{folder} lacks {len(missing)} of the {len(listed)} listed class folders ({named})")
    return [f"{name}/{below}" for name in listed for below in image_names(folder / name, leave_out=folder)]


def image_names(folder: Path, *, leave_out: Path | None = None) -> list[str]:
    """Paths of all image files below a folder, relative to it, sorted; but not those below ``leave_out``.

    Raises:
        UserError: If there are none, or a folder cannot be listed.
    """
    forbidden = frozenset() if leave_out is None else frozenset({os.path.realpath(leave_out)})
    try:
        names = sorted(_walk(str(folder), "", forbidden))
    except OSError as error:
        raise UserError(f"cannot list the images in {folder}: {error}") from None
    if not names:
        raise UserError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}), at any depth")
    return names


def _walk(folder: str, prefix: str, forbidden: frozenset[str]) -> Iterator[str]:
    """Folders above this one are forbidden too: a link that leads back up would never end."""
    real = os.path.realpath(folder)
    if real in forbidden:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", forbidden | {real})
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and (
                entry.is_file() or entry.is_symlink()
            ):
                yield prefix + entry.name


def hold_out(names: Sequence[str], fraction: float) -> frozenset[str]:
    """The share of the names, rounded but at least one, whose hashes are smallest; empty for fraction 0.

    Adding or removing other files moves few names from one side to the other.
    """
    if fraction == 0:
        return frozenset()
    by_hash = sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name), digest_size=8).digest())
    return frozenset(by_hash[: max(1, round(fraction * len(names)))])


def _first_folders(names: Sequence[str]) -> list[str] | None:
    """The first folder of each name, sorted and without repetition; None if some name has no folder."""
    if any("/" not in name for name in names):
        return None
    return sorted({name.partition("/")[0] for name in names})


def _training_classes(names: Sequence[str]) -> list[str] | None:
    folders = _first_folders(names)
    return folders if folders is not None and len(folders) > 1 else None


def _same_classes(names: Sequence[str], classes: list[str] | None, folder: Path) -> list[str] | None:
    """The classes of the training part if the held-out part has labels too."""
    folders = _first_folders(names)
    if classes is None or folders is None:
        return None
    if unknown := sorted(set(folders) - set(classes)):
        named = ", ".join(unknown[:5])
        raise UserError(
            f"{folder} has class folders that the training images have not ({named}); remove them"
        )
    return classes


def _labels(names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    number = {name: index for index, name in enumerate(class_names)}
    return np.array([number[name.partition("/")[0]] for name in names])
