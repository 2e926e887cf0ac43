"""A folder of images with a mask of the foreground beside each."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dppmask.data.base import ImageSource, Sample, Split
from dppmask.data.folder import ImageFolder
from dppmask.data.image_files import FileSource, ImageFiles
from dppmask.errors import UserError

MASK_SUFFIXES = (".png", ".npy")


class SegmentedFolder(FileSource):
    """Images as in :class:`~dppmask.data.folder.ImageFolder`, masks of the same names in another folder.

    The mask of ``root/val/cat/1.jpg`` is ``masks/val/cat/1.png`` or ``.npy``. In a picture whatever is not
    black is foreground. An array is ``[H, W]``, or ``[K, H, W]`` with one mask per object; what is not 0 is
    foreground. An image without a mask has no ``objects``.

    Args:
        root: The folder of images.
        masks: The folder of masks.
        val_fraction: As in ``ImageFolder``.

    Raises:
        UserError: If ``val_fraction`` is out of range.
    """

    def __init__(self, root: str, masks: str, *, val_fraction: float = 0.0) -> None:
        self.root = root
        self.masks = masks
        self.val_fraction = val_fraction
        self._folder = ImageFolder(root, val_fraction=val_fraction)

    def split(self, name: Split) -> "_SegmentedPart":
        """Open a part.

        Raises:
            UserError: As ``ImageFolder.split``, or if there is no folder of masks.
        """
        masks = Path(self.masks).expanduser()
        if not masks.is_dir():
            raise UserError(f"masks must be a folder of png or npy files, but {self.masks} is none")
        return _SegmentedPart(self._folder.split(name), Path(self.root).expanduser(), masks)


class _SegmentedPart(ImageSource):
    """A part of a folder with masks.

    Args:
        images: The part without masks.
        root: What the names of masks are relative to.
        masks: The folder of masks.
    """

    def __init__(self, images: ImageFiles, root: Path, masks: Path) -> None:
        self._images = images
        self.root = root
        self.masks = masks
        self.class_names = images.class_names

    def split(self, name: Split) -> ImageSource:
        """A part has no parts: always raises ``UserError``."""
        return self._images.split(name)

    @property
    def num_unreadable(self) -> int:  # type: ignore[override]
        """How many images could not be read so far."""
        return self._images.num_unreadable

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self._images.path(index)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        """See ``ImageFolder``; the mask is that of the image that is returned.

        Raises:
            UserError: If a mask cannot be read, or has another size than its image.
        """
        sample = self._images[index]
        image_path = self.path(sample.sample_id)
        path = self._mask_path(image_path)
        if path is None:
            return sample
        objects = read_objects(path)
        if objects.shape[1:] != sample.image.shape[1:]:
            (height, width), (rows, columns) = sample.image.shape[1:], objects.shape[1:]
            raise UserError(
                f"the mask {path} is {rows} x {columns} pixels, but its image {image_path} is "
                f"{height} x {width}"
            )
        return Sample(sample.image, sample.label, objects=objects, sample_id=sample.sample_id)

    def _mask_path(self, image_path: Path) -> Path | None:
        """The first that exists."""
        below = self.masks / image_path.relative_to(self.root)
        return next((path for s in MASK_SUFFIXES if (path := below.with_suffix(s)).is_file()), None)


def read_objects(path: Path) -> Tensor:
    """Masks of the objects of an image, bool ``[K, H, W]``; those without a pixel are left out.

    Raises:
        UserError: If the file cannot be read or has another shape.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                array = np.array(
                    picture if picture.mode in ("1", "L", "P", "I", "I;16") else picture.convert("L")
                )
    except Exception as error:  # damaged bytes make Pillow's plugins raise almost anything
        raise UserError(f"cannot read the mask {path}: {error}") from None
    if array.ndim not in (2, 3) or array.dtype.kind not in "buif":
        raise UserError(
            f"the mask {path} must be numbers [H, W] or [K, H, W], got {array.dtype} {list(array.shape)}"
        )
    objects = torch.from_numpy(array != 0)
    objects = objects[None] if objects.ndim == 2 else objects
    return objects[objects.flatten(1).any(1)]
