"""The strong augmentation of fine-tuning: RandAugment on a random crop, and a patch of noise."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from dppmask.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TrainTransform, apply_crop, normalise
from dppmask.errors import UserError


class FineTuneTransform(TrainTransform):
    """A random resized crop, flipped or not, then timm's RandAugment, normalisation, timm's random erasing.

    Args:
        image_size: Side of the result, or (height, width).
        rand_augment: In timm's notation; None = leave it out.
        erasing: Probability that a rectangle is filled with normal noise, pixel by pixel.
        scale: Smallest and largest share of the image's area in a crop.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.

    Raises:
        UserError: If a number is out of range or the notation is not timm's.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        *,
        rand_augment: str | None = "rand-m9-mstd0.5-inc1",
        erasing: float = 0.25,
        scale: tuple[float, float] = (0.08, 1.0),
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__(image_size, scale=scale, mean=mean, std=std)
        if not 0.0 <= erasing <= 1.0:
            raise UserError(f"erasing must be in [0, 1], got {erasing}")
        self.rand_augment = rand_augment
        self.erasing = erasing
        self._augment = None if rand_augment is None else _rand_augment(rand_augment, self.output_size, mean)
        self._erase = RandomErasing(erasing, mode="pixel", device="cpu")

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`~dppmask.data.transforms.TrainTransform.__call__`; the crop does not know of shears."""
        pixels, crop = self.cut(image)
        if self._augment is not None:
            augmented = self._augment(F.to_pil_image(pixels))
            pixels = torch.from_numpy(np.array(augmented)).permute(2, 0, 1)
        return self._erase(normalise(pixels, self.mean, self.std).contiguous()), crop


class WholeImageTransform(FineTuneTransform):
    """The same without the crop: the whole image is squeezed into the result, as its labels may be anywhere.

    Args:
        image_size: Side of the result, or (height, width).
        rand_augment: See :class:`FineTuneTransform`.
        erasing: See :class:`FineTuneTransform`.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.

    Raises:
        UserError: If a number is out of range or the notation is not timm's.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        *,
        rand_augment: str | None = "rand-m9-mstd0.5-inc1",
        erasing: float = 0.25,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__(image_size, rand_augment=rand_augment, erasing=erasing, mean=mean, std=std)

    def cut(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`~dppmask.data.transforms.TrainTransform.cut`; all there is to draw is the flip."""
        flipped = bool(torch.rand(()) < self.flip)
        crop = torch.tensor([0, 0, *image.shape[-2:], int(flipped)])
        return apply_crop(image, crop, self.output_size), crop


def _rand_augment(notation: str, size: tuple[int, int], mean: tuple[float, ...]) -> RandAugment:
    """timm's, with its factory's choices: fills what comes into view with the mean, bicubically."""
    colour = tuple(min(255, round(255 * channel)) for channel in mean)
    options = {
        "translate_const": int(0.45 * min(size)),
        "img_mean": colour,
        "interpolation": Image.Resampling.BICUBIC,
    }
    try:
        augment = rand_augment_transform(notation, options)
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"rand_augment must be written as timm does, such as rand-m9-mstd0.5-inc1, got {notation!r} "
            f"({error})"
        ) from None
    for operation in augment.ops:
        if operation.name.startswith("Posterize"):
            operation.level_fn = partial(_at_least_one_bit, operation.level_fn)
    return augment


def _at_least_one_bit(bits: Callable[..., tuple[int]], level: float, options: Any) -> tuple[int]:
    """How many bits posterising keeps; timm goes down to none, which Pillow refuses from version 13 on."""
    return (max(1, *bits(level, options)),)
