"""From stored images to the input of a network: random crops for training, a fixed crop for testing.

A transform keeps its constructor arguments as attributes and can be pickled. Random numbers come from torch's
global generator, which the loader sets for each sample.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from dppmask.errors import UserError
from dppmask.views import check_scale

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZE_RATIO = 256 / 224  # of the image that is resized to the crop for testing


class TrainTransform:
    """Random resized crop (bicubic), horizontal flip, normalisation.

    Args:
        image_size: Side of the result, or (height, width).
        scale: Smallest and largest share of the image's area in a crop.
        ratio: Smallest and largest width over height of a crop.
        flip: Probability of a horizontal flip.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        *,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        self.image_size = image_size
        self.scale = scale
        self.ratio = ratio
        self.flip = flip
        self.mean = mean
        self.std = std
        self.output_size = height_and_width(image_size)
        check_scale("scale", scale, example=(0.2, 1.0))
        if not 0.0 < ratio[0] <= ratio[1]:
            raise UserError(f"ratio must be (low, high) with 0 < low <= high, got {tuple(ratio)}")
        if not 0.0 <= flip <= 1.0:
            raise UserError(f"flip must be in [0, 1], got {flip}")
        self._crop = v2.RandomResizedCrop(self.output_size, scale=tuple(scale), ratio=tuple(ratio))

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Crop one image.

        Args:
            image: uint8 ``[3, H, W]``.

        Returns:
            The network's input, float32 ``[3, h, w]``, and the crop it shows, int64 ``[5]``: top, left,
            height, width in stored pixels, and 1 if flipped.
        """
        pixels, crop = self.cut(image)
        return normalise(pixels, self.mean, self.std), crop

    def cut(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The same without the normalisation: uint8 ``[3, h, w]``, and the crop."""
        box = self._crop.make_params([image])
        flipped = bool(torch.rand(()) < self.flip)
        crop = torch.tensor([box["top"], box["left"], box["height"], box["width"], int(flipped)])
        return apply_crop(image, crop, self.output_size), crop


class EvalTransform:
    """Resize so that the image covers the crop with a border, then crop the middle; by default 256 and 224.

    Args:
        image_size: Side of the result, or (height, width).
        resize_ratio: Size of the resized image over that of the crop; 1 keeps everything but the longer
            side's ends. None keeps the image whole: it is squeezed into the result, whatever its shape.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        *,
        resize_ratio: float | None = RESIZE_RATIO,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        self.image_size = image_size
        self.resize_ratio = resize_ratio
        self.mean = mean
        self.std = std
        self.output_size = height_and_width(image_size)
        if resize_ratio is not None and resize_ratio < 1.0:
            raise UserError(f"resize_ratio must be at least 1, or None for no crop, got {resize_ratio}")

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Resize and crop one image.

        Args:
            image: uint8 ``[3, H, W]``.

        Returns:
            The network's input, float32 ``[3, h, w]``, and the part of the image it shows, int64 ``[5]``:
            top, left, height, width, rounded to stored pixels, and 0 (never flipped).
        """
        fitted = self._fit(image, InterpolationMode.BICUBIC)
        return normalise(fitted, self.mean, self.std), self._shown(*image.shape[-2:])

    def geometry(self, masks: Tensor) -> Tensor:
        """Where masks go: bool ``[K, H, W]`` to ``[K, h, w]``; True where over half of a pixel is covered."""
        return self._fit(masks.float(), InterpolationMode.BILINEAR) > 0.5

    def _shown(self, height: int, width: int) -> Tensor:
        resized = self._resized(height, width)
        shares = [cropped / whole for cropped, whole in zip(self.output_size, resized, strict=True)]
        shown = [min(round(side * share), side) for side, share in zip((height, width), shares, strict=True)]
        return torch.tensor([(height - shown[0]) // 2, (width - shown[1]) // 2, *shown, 0])

    def _fit(self, image: Tensor, interpolation: InterpolationMode) -> Tensor:
        resized = F.resize(
            image, self._resized(*image.shape[-2:]), interpolation=interpolation, antialias=True
        )
        return F.center_crop(resized, list(self.output_size))

    def _resized(self, height: int, width: int) -> list[int]:
        """The smallest size of equal shape that covers the enlarged crop; without a crop, the result's."""
        if self.resize_ratio is None:
            return list(self.output_size)
        cover_height, cover_width = (round(side * self.resize_ratio) for side in self.output_size)
        if cover_height * width >= cover_width * height:
            return [cover_height, int(cover_height * width / height)]
        return [int(cover_width * height / width), cover_width]


def train_transform(
    image_size: int | tuple[int, int], *, scale: tuple[float, float] = (0.2, 1.0)
) -> TrainTransform:
    """MAE's augmentation for pre-training."""
    return TrainTransform(image_size, scale=scale)


def eval_transform(
    image_size: int | tuple[int, int], *, resize_ratio: float | None = RESIZE_RATIO
) -> EvalTransform:
    """The usual transform for testing."""
    return EvalTransform(image_size, resize_ratio=resize_ratio)


def apply_crop(image: Tensor, crop: Tensor, output_size: Sequence[int]) -> Tensor:
    """Cut ``crop`` (top, left, height, width, flip) out of ``[..., H, W]`` and resize it bicubically."""
    top, left, height, width, flipped = crop.tolist()
    cut = F.resized_crop(
        image,
        top,
        left,
        height,
        width,
        list(output_size),
        interpolation=InterpolationMode.BICUBIC,
        antialias=True,
    )
    return cut.flip(-1) if flipped else cut


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """float32 with zero mean and unit variance per channel, from uint8 ``[..., C, H, W]``."""
    scaled = image.to(torch.float32).div_(255)
    return scaled.sub_(_channels(mean, scaled)).div_(_channels(std, scaled))


def denormalise(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Undo :func:`normalise`, without rounding: values in [0, 1] for unchanged images."""
    return images * _channels(std, images) + _channels(mean, images)


def height_and_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """An image size as (height, width).

    Raises:
        UserError: If it is neither one positive number nor two.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or min(sides) < 1:
        raise UserError(
            f"image_size must be a positive number of pixels or (height, width), got {image_size}"
        )
    return sides


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
