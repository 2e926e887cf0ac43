"""MS-COCO in its official layout: images with several labels, and the outlines of their objects."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dppmask.data.base import Sample, Split, check_split
from dppmask.data.coco_annotations import Annotations, read_annotations
from dppmask.data.image_files import FileSource, ImageFiles
from dppmask.errors import UserError

YEARS = (2014, 2017)


class COCO(FileSource):
    """Images with the categories of their annotations as labels: 80 in the original.

    A label holds if the image has any annotation of its category, crowds included; the order is that of the
    categories in the file. An unsplit source is its training part. Images are tested whole, squeezed into the
    encoder's input, as is usual for several labels.

    The files are ``annotations/instances_train2014.json`` with the images in ``train2014``, and the same for
    ``val`` and 2017. Whatever is stored elsewhere is named one by one, below the root or as a full path; a
    data set of your own in this format needs all four.

    Args:
        root: The folder.
        year: 2014 or 2017.
        train_annotations: The file of the training part, if not the official one.
        val_annotations: The same for the held-out part.
        train_images: The folder of the training images, if not the official one.
        val_images: The same for the held-out part.
        objects: Whether samples carry the pixels of their objects; crowds are no objects.
        keep_empty: Whether to keep images that have no annotation.

    Raises:
        UserError: If there was no COCO of that year.
    """

    multi_label = True
    whole = True

    def __init__(
        self,
        root: str,
        *,
        year: Literal[2014, 2017] = 2014,
        train_annotations: str | None = None,
        val_annotations: str | None = None,
        train_images: str | None = None,
        val_images: str | None = None,
        objects: bool = False,
        keep_empty: bool = False,
    ) -> None:
        if year not in YEARS:
            raise UserError(f"year must be 2014 or 2017, got {year}")
        self.root = root
        self.year = year
        self.train_annotations = train_annotations
        self.val_annotations = val_annotations
        self.train_images = train_images
        self.val_images = val_images
        self.objects = objects
        self.keep_empty = keep_empty

    def split(self, name: Split) -> ImageFiles:
        """Read the annotations of a part.

        Raises:
            UserError: If files are missing or damaged, contradict themselves, or leave no image.
        """
        check_split(name)
        annotations, images = self.files(name)
        if not images.is_dir():
            raise UserError(
                f"there is no folder {images} with the {name} images of COCO; see root and {name}_images"
            )
        read = read_annotations(annotations, keep_empty=self.keep_empty)
        return _COCOPart(images, read, objects=self.objects)

    def files(self, name: Split) -> tuple[Path, Path]:
        """The annotations and the folder of images of a part."""
        root = Path(self.root).expanduser()
        annotations = getattr(self, f"{name}_annotations") or annotations_name(name, self.year)
        images = getattr(self, f"{name}_images") or f"{name}{self.year}"
        return root / annotations, root / images


class _COCOPart(ImageFiles):
    """The images that one file annotates."""

    multi_label = True
    whole = True

    def __init__(self, folder: Path, annotations: Annotations, *, objects: bool) -> None:
        super().__init__(folder, annotations.names, listed_in=annotations.path)
        self.class_names = annotations.class_names
        self.annotations = annotations
        self.objects = objects
        self[0]  # an error now, if nothing here can be read

    def sample(self, position: int, image: Tensor) -> Sample:
        """See :meth:`ImageFiles.sample`.

        Raises:
            UserError: If objects are asked for and the image has another size than they have.
        """
        labels = torch.from_numpy(self.annotations.labels[position].copy())
        return Sample(image, labels=labels, objects=self._objects(position, image), sample_id=position)

    def object_labels(self, index: int) -> list[int]:
        """The category of each of the objects of an image, in their order."""
        return self.annotations.object_labels(index)

    def _objects(self, position: int, image: Tensor) -> Tensor | None:
        if not self.objects:
            return None
        size, annotated = list(image.shape[1:]), self.annotations.sizes[position].tolist()
        if size != annotated:
            raise UserError(
                f"{self.path(position)} is {size[0]} pixels high and {size[1]} wide, but "
                f"{self.annotations.path} outlines objects in {annotated[0]} by {annotated[1]}"
            )
        return self.annotations.objects(position)


def annotations_name(name: Split, year: int) -> str:
    """Where the official annotations of a part lie below the root."""
    return f"annotations/instances_{name}{year}.json"
