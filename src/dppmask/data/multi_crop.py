"""Large and small crops of each image with changed colours and sharpness, as iBOT and DINO train on them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from dppmask.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TrainTransform, normalise
from dppmask.views import MultiCrop, Views

BLUR_RADIUS = (0.1, 2.0)  # pixels, the standard deviation of the Gaussian
SOLARISE_FROM = 128  # values from here on are inverted


@dataclass(frozen=True)
class Distortion:
    """How often a crop is blurred and solarised; all kinds share the changes of colour."""

    blur: float
    solarise: float


# The first global crop, all further global crops, and the local crops of iBOT.
FIRST, OTHERS, LOCAL = Distortion(1.0, 0.0), Distortion(0.1, 0.2), Distortion(0.5, 0.0)


class MultiCropTransform:
    """Random resized crops of two sizes, each flipped, recoloured, blurred or solarised at random.

    Brightness, contrast, saturation and hue change by up to (0.4, 0.4, 0.2, 0.1) in 80 % of the crops, and
    20 % lose their colour. The first global crop is always blurred, further ones in 10 %, local ones in 50 %;
    further global crops are solarised in 20 %. ``crops.light`` multiplies the first two amounts and the
    probability of a blur; ``crops.colour`` the other two, and the probabilities of grey and of solarisation.

    Args:
        image_size: Side of the global crops, or (height, width).
        crops: How many crops, the size of the local ones, the strength of what is done to them.
        scale: Smallest and largest share of the image's area in a global crop.
        mean: Of each channel, for values in [0, 1].
        std: Of each channel.

    Raises:
        UserError: If a number is out of range.

    Source: DataAugmentationiBOT of bytedance/ibot, main_ibot.py.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        crops: MultiCrop,
        *,
        scale: tuple[float, float] = (0.25, 1.0),
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        self.image_size = image_size
        self.crops = crops
        self.scale = scale
        self.mean = mean
        self.std = std
        self._global = TrainTransform(image_size, scale=scale)
        # Without local crops, whatever their size is does not matter.
        self._local = TrainTransform(crops.local_size if crops.num_local else 1, scale=crops.local_scale)
        light, colour = crops.light, crops.colour
        self._jitter = v2.ColorJitter(0.4 * light, 0.4 * light, 0.2 * colour, 0.1 * colour)

    def __call__(self, image: Tensor) -> tuple[Views, Tensor]:
        """The crops of one image.

        Args:
            image: uint8 ``[3, H, W]``.

        Returns:
            Views of a batch of one, and what its global crops show, int64 ``[G, 5]``: top, left, height,
            width in stored pixels, and 1 if flipped.
        """
        num_global, num_local = self.crops.num_global, self.crops.num_local
        kinds = [FIRST] + [OTHERS] * (num_global - 1)
        global_crops, shown = zip(*(self._crop(image, self._global, kind) for kind in kinds), strict=True)
        local_crops = [self._crop(image, self._local, LOCAL)[0] for _ in range(num_local)]
        views = Views(
            torch.stack(global_crops),
            torch.stack(local_crops) if local_crops else None,
            num_global,
            num_local,
        )
        return views, torch.stack(shown)

    def _crop(self, image: Tensor, crop: TrainTransform, kind: Distortion) -> tuple[Tensor, Tensor]:
        """One distorted and normalised crop, and what it shows."""
        pixels, shown = crop.cut(image)
        return normalise(self._distort(pixels, kind), self.mean, self.std), shown

    def _distort(self, pixels: Tensor, kind: Distortion) -> Tensor:
        light, colour = self.crops.light, self.crops.colour
        changes: list[tuple[float, Callable[[Tensor], Tensor]]] = [
            (0.8, self._jitter),
            (0.2 * colour, lambda x: F.rgb_to_grayscale(x, num_output_channels=3)),
            (kind.blur * light, random_blur),
            (kind.solarise * colour, lambda x: F.solarize(x, SOLARISE_FROM)),
        ]
        for probability, change in changes:
            if torch.rand(()) < probability:
                pixels = change(pixels)
        return pixels


def random_blur(pixels: Tensor) -> Tensor:
    """Gaussian blur of a random radius; the kernel reaches three radii, or as far as the image does."""
    radius = torch.empty(()).uniform_(*BLUR_RADIUS).item()
    side = 2 * min(math.ceil(3 * radius), min(pixels.shape[-2:]) - 1) + 1
    blurred = pixels.float()
    for kernel_size in ([side, 1], [1, side]):  # one axis after the other: torchvision's kernel is square
        blurred = F.gaussian_blur(blurred, kernel_size=kernel_size, sigma=[radius, radius])
    return blurred.round_().to(pixels.dtype)
