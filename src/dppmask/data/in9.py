"""ImageNet-9, the data of the Backgrounds Challenge, as released or as written by ``dppmask backgrounds``."""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dppmask.data.base import Sample, Split
from dppmask.data.folder import ImageFolder
from dppmask.data.in9_classes import FOLDERS
from dppmask.data.variants import VARIANTS, VariantPart, VariantSource, check_variant
from dppmask.errors import UserError

MASKS = "fg_mask"
_MIXED_STEM = re.compile(r"fg_(?P<foreground>.+)_bg_(?P<background>.+)")
_NUMBER = re.compile(r"\d+_")


class IN9(VariantSource):
    """Images in ``root/VARIANT/val/CLASS``, foreground masks in ``root/fg_mask/val/CLASS/NAME.npy``.

    Class folders begin with their number, as in the release ("02_wheeled vehicle"); sorted, they are the
    labels, and the class is named by what follows the number. All variants must have the same class folders;
    where they are from the release, all nine. Images may have any format and size. There is a training part
    where there are folders ``root/VARIANT/train``.

    Args:
        root: The folder.
        selected: Which variant this is.

    Raises:
        UserError: If there is no such variant.

    Source: Xiao et al. (2020), *Noise or Signal: The Role of Image Backgrounds in Object Recognition*;
        MadryLab/backgrounds_challenge.
    """

    whole = True  # cropped before they were stored

    def __init__(self, root: str, *, selected: str = "original") -> None:
        check_variant(selected)
        self.root = root
        self.selected = selected

    @property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """Names of the class folders without their numbers."""
        split: Split = "val" if self._present("val") else "train"
        return class_names(self._class_folders(split))

    def variants(self, split: Split) -> tuple[str, ...]:
        """Those that have a folder.

        Raises:
            UserError: If none has.
        """
        present = self._present(split)
        if not present:
            raise UserError(
                f"{self.root} has none of the folders {', '.join(f'{name}/{split}' for name in VARIANTS)}; "
                "root must be the folder of the unpacked release, or one that dppmask backgrounds wrote"
            )
        return present

    def variant(self, name: str) -> "IN9":
        """See :meth:`~dppmask.data.variants.VariantSource.variant`."""
        return IN9(self.root, selected=name)

    def split(self, name: Split) -> "_IN9Part":
        """Look through the folders of this variant.

        Raises:
            UserError: If it has no folder for this part, a class folder is missing, empty or unknown, or no
                image can be read.
        """
        present = self.variants(name)
        folder = self._folder(self.selected, name)
        if self.selected not in present:
            raise UserError(f"there is no folder {folder}; {self.root} has {', '.join(present)}")
        expected = self._class_folders(name)
        found = _subfolders(folder)
        if missing := [repr(one) for one in expected if one not in found]:
            raise UserError(f"{folder} lacks the class folders {', '.join(missing)}")
        if unknown := [repr(one) for one in found if one not in expected]:
            raise UserError(f"{folder} has class folders that other variants have not: {', '.join(unknown)}")
        return _IN9Part(folder, Path(self.root).expanduser() / MASKS / name, expected)

    def _folder(self, variant: str, split: Split) -> Path:
        return Path(self.root).expanduser() / variant / split

    def _present(self, split: Split) -> tuple[str, ...]:
        return tuple(name for name in VARIANTS if self._folder(name, split).is_dir())

    def _class_folders(self, split: Split) -> list[str]:
        """The nine of the release if these are some of them, else those of the first variant."""
        found = _subfolders(self._folder(self.variants(split)[0], split))
        return list(FOLDERS) if found and set(found) <= set(FOLDERS) else found


class _IN9Part(VariantPart):
    """One variant of one part.

    Args:
        folder: Where the class folders lie.
        masks: Where those of the masks lie.
        class_folders: Their names, in the order of the labels.

    Raises:
        UserError: If a class folder is empty, there are fewer than two, or no image can be read.
    """

    whole = True

    def __init__(self, folder: Path, masks: Path, class_folders: list[str]) -> None:
        if len(class_folders) < 2:
            raise UserError(f"{folder} must have at least 2 class folders, got {len(class_folders)}")
        self.folder = folder
        self.masks = masks
        self.class_folders = class_folders
        self.class_names = class_names(class_folders)
        self._images = ImageFolder(str(folder)).split("train")
        if empty := sorted(set(class_folders) - set(self._images.class_names or ())):
            raise UserError(f"{folder} has no images in {', '.join(map(repr, empty))}")

    @property
    def num_unreadable(self) -> int:  # type: ignore[override]
        """How many files could not be read so far."""
        return self._images.num_unreadable

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self._images.path(index)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        return self._images[index]

    def label(self, index: int) -> int:
        """See :meth:`~dppmask.data.variants.VariantPart.label`."""
        return self.class_folders.index(self._class_folder(index))

    def foreground(self, index: int) -> str:
        """The name of the original's file, without ending."""
        return self._names(index)[0]

    def background(self, index: int) -> str | None:
        """The name of the file that the background was taken from; None = its own."""
        return self._names(index)[1]

    def mask(self, index: int) -> Tensor:
        """See :meth:`~dppmask.data.variants.VariantPart.mask`.

        Raises:
            UserError: If the file is missing, no mask, or of another size than the image.
        """
        path = self.masks / self._class_folder(index) / f"{self.foreground(index)}.npy"
        mask = read_mask_array(path)
        size = tuple(self[index].image.shape[1:])
        if tuple(mask.shape) != size:
            raise UserError(
                f"the mask {path} is {mask.shape[0]} x {mask.shape[1]} pixels, but its image "
                f"{self.path(index)} is {size[0]} x {size[1]}"
            )
        return mask

    def _class_folder(self, index: int) -> str:
        return self.path(index).relative_to(self.folder).parts[0]

    def _names(self, index: int) -> tuple[str, str | None]:
        stem = self.path(index).stem
        match = _MIXED_STEM.fullmatch(stem)
        return (match["foreground"], match["background"]) if match else (stem, None)


def class_names(folders: list[str]) -> list[str]:
    """The folders without their numbers, unless two would then be the same."""
    names = [_NUMBER.sub("", folder, count=1) for folder in folders]
    return names if len(set(names)) == len(names) and all(names) else folders


def class_folders(names: list[str]) -> list[str]:
    """Folders in the order of the names: "00_dog", "01_bird" and so on."""
    digits = max(2, len(str(len(names) - 1)))
    return [f"{number:0{digits}d}_{name.replace('/', '-')}" for number, name in enumerate(names)]


def read_mask_array(path: Path) -> Tensor:
    """A foreground mask bool ``[H, W]`` from an array file: whatever is not 0.

    Raises:
        UserError: If the file is missing or holds something else.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"there is no mask {path}") from None
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"cannot read the mask {path}: {error}") from None
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise UserError(f"the mask {path} must be numbers [H, W], got {array.dtype} {list(array.shape)}")
    return torch.from_numpy(array != 0)


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
