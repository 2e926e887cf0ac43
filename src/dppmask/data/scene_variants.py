"""Scenes in the variants of the Backgrounds Challenge: objects keep their shadows on another floor."""

import torch
from torch import Tensor

from dppmask.data.base import Sample, Split
from dppmask.data.compositing import Box, blacken_box, tile_box
from dppmask.data.scene_objects import Foreground
from dppmask.data.scene_textures import FAMILIES
from dppmask.data.scenes import SPLIT_NUMBERS, Scenes, compose
from dppmask.data.variants import (
    MIXED,
    VARIANTS,
    VariantPart,
    VariantSource,
    background_class,
    check_variant,
    draw,
)
from dppmask.errors import UserError
from dppmask.rng import fold_in

VARIANT_STREAM = 2  # beside those of a scene and its floor
OTHER_SCENES = range(10**6, 2 * 10**6)  # beyond the data set: scenes whose floors are used for mixing


class SceneVariants(VariantSource):
    """The variants of :class:`~dppmask.data.scenes.Scenes` with the task "single".

    Foregrounds are the same in all variants, as are their shadows and borders where there is a floor. A mixed
    image has the floor of a scene outside the data set, of the same, a random or the next class, which tells
    the class of that scene as often as any floor does its own.

    Args:
        scenes: The scenes.
        selected: Which variant this is.

    Raises:
        UserError: If the scenes are of another task, or there is no such variant.
    """

    def __init__(self, scenes: Scenes, selected: str = "original") -> None:
        check_variant(selected)
        if scenes.task != "single":
            raise UserError(
                "background variants need one object and one class per image, "
                f"got task {scenes.task}; use --data.task single"
            )
        self.scenes = scenes
        self.selected = selected
        self.class_names = scenes.class_names

    def variants(self, split: Split) -> tuple[str, ...]:
        """All of them."""
        return tuple(VARIANTS)

    def variant(self, name: str) -> "SceneVariants":
        """See :meth:`~dppmask.data.variants.VariantSource.variant`."""
        return SceneVariants(self.scenes, name)

    def split(self, name: Split) -> "_SceneVariantPart":
        """See :meth:`~dppmask.data.variants.VariantSource.split`."""
        return _SceneVariantPart(self.scenes.split(name), self.selected, name)

    def background_only(self, split: Split) -> float | None:
        """The accuracy of a perfect eye for floors that knows which family goes with which class."""
        if self.selected == "only_fg":
            return None
        part = self.split(split)
        right = sum(part.background_label(index) == part.label(index) for index in range(len(part)))
        return right / len(part)


class _SceneVariantPart(VariantPart):
    """One variant of an opened part of scenes.

    Args:
        scenes: The part.
        selected: The variant.
        opened: Which part it is.
    """

    def __init__(self, scenes: Scenes, selected: str, opened: Split) -> None:
        self.scenes = scenes
        self.selected = selected
        self.class_names = scenes.class_names
        self._stream = (SPLIT_NUMBERS[opened], VARIANT_STREAM)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        sample = self.scenes[index]
        if self.selected == "original":
            return sample
        return Sample(self._render(index), sample.label, objects=sample.objects, sample_id=index)

    def label(self, index: int) -> int:
        """See :meth:`~dppmask.data.variants.VariantPart.label`."""
        return self.scenes.present(index)[0]

    def foreground(self, index: int) -> str:
        """The number of the scene."""
        return f"{index:06d}"

    def background(self, index: int) -> str | None:
        """The number of the scene whose floor it is."""
        return f"{self.background_scene(index):06d}" if self.selected in MIXED else None

    def mask(self, index: int) -> Tensor:
        """See :meth:`~dppmask.data.variants.VariantPart.mask`."""
        return self.scenes.foreground(index).owners > 0

    def background_scene(self, index: int) -> int:
        """The scene whose floor is shown: the own one, or the first of a wanted class among random ones."""
        if self.selected not in MIXED:
            return index
        generator = fold_in(self.scenes.seed, *self._stream, MIXED.index(self.selected), index)
        classes = range(len(self.class_names or ()))
        wanted = background_class(self.selected, self.label(index), classes, generator)
        while self.label(scene := draw(OTHER_SCENES, generator)) != wanted:
            pass
        return scene

    def background_label(self, index: int) -> int:
        """The class that the family of the floor goes with."""
        return list(FAMILIES).index(self.scenes.background_family(self.background_scene(index)))

    def _render(self, index: int) -> Tensor:
        """Pixels uint8 ``[3, H, W]`` of any variant but the original."""
        if self.selected in ("only_bg_b", "only_bg_t"):
            fill = blacken_box if self.selected == "only_bg_b" else tile_box
            foreground = self.scenes.foreground(index)
            return fill(self.scenes[index].image, Box.around(foreground.alpha > 0))
        foreground = self.scenes.foreground(index)
        if self.selected == "only_fg":
            return compose(foreground, torch.zeros_like(foreground.colour))
        floor = self.scenes.background(self.background_scene(index))
        return compose(_silhouette(foreground) if self.selected == "no_fg" else foreground, floor)


def _silhouette(foreground: Foreground) -> Foreground:
    """The same objects, black."""
    colour = torch.zeros_like(foreground.colour)
    return Foreground(colour, foreground.alpha, foreground.shade, foreground.owners)
