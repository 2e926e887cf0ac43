"""From an image file to pixels: every mode that Pillow reads becomes upright RGB with 8 bits a channel."""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


class UnreadableImageError(Exception):
    """A file that is missing, damaged, too large to be honest, or no image."""


def read_image(path: str | Path) -> Tensor:
    """The pixels of a file, uint8 ``[3, H, W]``.

    EXIF rotation is applied. Greyscale, palette and CMYK become RGB; whatever is transparent shows white; 16
    bits a channel are scaled to 8; of an animation the first frame is taken. Pillow's protection against
    decompression bombs stays on: it warns above 89 megapixels, and beyond twice that the file counts as
    unreadable.

    Raises:
        UnreadableImageError: If no pixels can be had.
    """
    return _decode(path, str(path))


def decode_image(content: bytes, *, name: str) -> Tensor:
    """The pixels of a file that is in memory, as :func:`read_image` gives them.

    Args:
        content: The bytes of the file.
        name: What an error calls it.

    Raises:
        UnreadableImageError: If no pixels can be had.
    """
    return _decode(io.BytesIO(content), name)


def _decode(file: str | Path | BinaryIO, name: str) -> Tensor:
    try:
        with Image.open(file) as image:
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(_to_rgb(image))
    except Exception as error:  # damaged bytes make Pillow's plugins raise almost anything
        raise UnreadableImageError(f"{name}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; store 8 or 16 bits")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 0 to 65535 in Pillow's modes I and I;16 (any byte order), which ``convert`` would clip."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"32-bit pixels outside 0…65535 ({values.min()}…{values.max()}) have no agreed range"
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
