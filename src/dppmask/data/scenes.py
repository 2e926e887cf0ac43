"""Scenes: the embedded default data, rendered from (seed, split, index) alone; nothing is downloaded."""

import copy
import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dppmask.data.base import ImageSource, Sample, Split, check_split
from dppmask.data.scene_layout import (
    COLOURS,
    KIND_NAMES,
    KINDS,
    MAX_OBJECTS,
    SHAPES,
    Dice,
    Scene,
    SceneObject,
    draw_scene,
)
from dppmask.data.scene_objects import GAMMA, Foreground, render_foreground
from dppmask.data.scene_textures import FAMILIES, render_background
from dppmask.errors import UserError, nearest
from dppmask.rng import fold_in

RENDERER_VERSION = 1  # part of the name of a cache file: raise it whenever pixels change
MEMORY_CACHE_BYTES = 2**30  # of rendered images in each process
MIN_SIDE = 32
SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "val": 1}
SCENE_STREAM, BACKGROUND_STREAM = 0, 1
RADII = {"multi": {"small": 0.16, "large": 0.28}, "single": {"small": 0.34, "large": 0.52}}
COLOUR_GROUPS = {
    "warm": ("red", "brown", "yellow"),
    "cool": ("blue", "green", "cyan"),
    "gray or purple": ("gray", "purple"),
}
SINGLE_CLASSES = [(shape, group) for shape in SHAPES for group in COLOUR_GROUPS]


class Scenes(ImageSource):
    """Shaded cubes, spheres and cylinders on textured floors, after CLEVR, with the truth about every pixel.

    An unsplit source is its training part. Sample ``i`` is the same image whatever was asked for before, and
    shows the same scene at any size. Its ``objects`` are the visible pixels of each object, disjoint, from
    the farthest to the nearest.

    Tasks:
        multi: 3 to 10 objects that partly hide each other; 24 labels, ``8 * shape + colour`` present or not.
        single: one object; 9 classes, ``3 * shape + colour group``. Each class has a family of backgrounds,
            and shows it with probability ``background_correlation``, else any family: a classifier that looks
            at the background alone is right in at most ``c + (1 - c) / 9`` of the images.

    Args:
        size: Side of the images, or (height, width).
        train_size: Number of training images.
        val_size: Number of held-out images.
        task: "multi" or "single".
        background_correlation: How often the background tells the class ("single" only), from 0 to 1.
        seed: Of everything that is drawn.
        cache_dir: Folder for rendered images; the first ``split`` then renders them all, later ones read the
            file. Without it, each process remembers what it has rendered, up to 1 GiB.

    Raises:
        UserError: If the task is unknown, or a number is out of range.
    """

    whole = True

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 64,
        train_size: int = 10_000,
        val_size: int = 2_000,
        task: Literal["multi", "single"] = "multi",
        background_correlation: float = 0.5,
        seed: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        self.size = size
        self.train_size = train_size
        self.val_size = val_size
        self.task = task
        self.background_correlation = background_correlation
        self.seed = seed
        self.cache_dir = cache_dir
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self._check()
        self.multi_label = task == "multi"
        if self.multi_label:
            self.class_names = list(KIND_NAMES)
        else:
            self.class_names = [f"{group} {shape}" for shape, group in SINGLE_CLASSES]
        self._split: Split = "train"
        self._remembered: dict[int, tuple[Tensor, Tensor, list[int]]] = {}
        self._file: np.ndarray | None = None

    def split(self, name: Split) -> "Scenes":
        """The training or the held-out part.

        Raises:
            UserError: If there is no part of this name, or the cache file cannot be read.
        """
        check_split(name)
        part = copy.copy(self)
        part._split, part._remembered, part._file = name, {}, None
        if self.cache_dir is not None:
            part._file = part._open_cache(Path(self.cache_dir))
        return part

    def __len__(self) -> int:
        return self.train_size if self._split == "train" else self.val_size

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        pixels, owners, present = self._remembered.get(index) or self._remember(index)
        objects = owners == torch.arange(1, int(owners.max()) + 1, dtype=torch.uint8)[:, None, None]
        if not self.multi_label:
            return Sample(pixels.clone(), label=present[0], objects=objects, sample_id=index)
        labels = torch.zeros(len(KINDS), dtype=torch.bool)
        labels[present] = True
        return Sample(pixels.clone(), labels=labels, objects=objects, sample_id=index)

    def scene(self, index: int) -> Scene:
        """What stands in image ``index``: kinds, places, camera, light."""
        dice = Dice(self._generator(index, SCENE_STREAM))
        if self.multi_label:
            count = dice.choice(range(3, MAX_OBJECTS + 1))
            kinds = [(dice.choice(SHAPES), dice.choice(list(COLOURS))) for _ in range(count)]
        else:
            shape, group = dice.choice(SINGLE_CLASSES)
            kinds = [(shape, dice.choice(COLOUR_GROUPS[group]))]
        return draw_scene(dice, kinds, aspect=self.width / self.height, radii=RADII[self.task])

    def present(self, index: int) -> list[int]:
        """The classes of image ``index``: one for "single", all labels that hold for "multi"."""
        return sorted({self.class_of(item) for item in self.scene(index).objects})

    def class_of(self, item: SceneObject) -> int:
        """The class, or label, that an object makes true."""
        if self.multi_label:
            return KINDS.index((item.shape, item.colour))
        group = next(name for name, colours in COLOUR_GROUPS.items() if item.colour in colours)
        return SINGLE_CLASSES.index((item.shape, group))

    def background_family(self, index: int) -> str:
        """The kind of floor of image ``index``."""
        dice = Dice(self._generator(index, BACKGROUND_STREAM, 0))
        families = list(FAMILIES)
        if not self.multi_label and dice.uniform(0, 1) < self.background_correlation:
            return families[self.present(index)[0]]
        return dice.choice(families)

    def foreground(self, index: int) -> Foreground:
        """The objects of image ``index`` with their shadows, without a background."""
        return render_foreground(self.scene(index), self.height, self.width)

    def background(self, index: int) -> Tensor:
        """The floor of image ``index`` without objects, linear colour ``[3, H, W]``."""
        generator = self._generator(index, BACKGROUND_STREAM, 1)
        return render_background(self.background_family(index), generator, self.height, self.width)

    def __getstate__(self) -> dict[str, object]:
        """A worker gets the recipe, not what this process has rendered."""
        return self.__dict__ | {"_remembered": {}}

    def _generator(self, index: int, *stream: int) -> torch.Generator:
        return fold_in(self.seed, SPLIT_NUMBERS[self._split], index, *stream)

    def _render(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels uint8 ``[3, H, W]`` and owners uint8 ``[H, W]``."""
        foreground = self.foreground(index)
        return compose(foreground, self.background(index)), foreground.owners

    def _remember(self, index: int) -> tuple[Tensor, Tensor, list[int]]:
        if self._file is None:
            pixels, owners = self._render(index)
        else:
            stored = torch.from_numpy(np.array(self._file[index]))
            pixels, owners = stored[:3], stored[3]
        entry = pixels, owners, self.present(index)
        if len(self._remembered) < MEMORY_CACHE_BYTES // (4 * self.height * self.width):
            self._remembered[index] = entry
        return entry

    def _open_cache(self, folder: Path) -> np.ndarray:
        """The rendered images uint8 ``[len, 4, H, W]`` (pixels, owners), rendered first if need be."""
        name = (
            f"scenes-v{RENDERER_VERSION}-{self.task}-{self.height}x{self.width}-seed{self.seed}"
            f"-correlation{self.background_correlation:g}-{self._split}-{len(self)}.npy"
        )
        path = folder / name
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._write_cache(path)
        try:
            return np.load(path, mmap_mode="r")
        except ValueError as error:
            raise UserError(f"the cache file {path} cannot be read ({error}); delete it") from None

    def _write_cache(self, path: Path) -> None:
        """Render everything to a temporary file, then give it its name: readers never see half a file."""
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            shape = (len(self), 4, self.height, self.width)
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            for index in range(len(self)):
                pixels, owners = self._render(index)
                array[index, :3], array[index, 3] = pixels.numpy(), owners.numpy()
            array.flush()
            os.replace(temporary, path)

    def _check(self) -> None:
        if self.task not in RADII:
            raise UserError(
                f"task must be multi or single, got {self.task!r}; {nearest(str(self.task), RADII)}"
            )
        if min(self.height, self.width) < MIN_SIDE:
            raise UserError(
                f"size must be at least {MIN_SIDE} pixels a side, got {self.size}; objects would vanish"
            )
        if min(self.train_size, self.val_size) < 1:
            raise UserError(
                f"train_size and val_size must be at least 1, got {self.train_size}, {self.val_size}"
            )
        if not 0.0 <= self.background_correlation <= 1.0:
            raise UserError(f"background_correlation must be in [0, 1], got {self.background_correlation}")


def compose(foreground: Foreground, background: Tensor) -> Tensor:
    """Objects before a floor, uint8 ``[3, H, W]``; colours go from linear to display."""
    linear = foreground.colour + (1 - foreground.alpha) * foreground.shade * background
    return linear.clamp(0, 1).pow_(1 / GAMMA).mul_(255).round_().to(torch.uint8)
