"""Small pictures as text, for records of evaluations that are drawn later: uint8 images ↔ PNG in base64."""

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_png(image: Tensor) -> str:
    """An image as a PNG file in base64, without loss; :func:`from_png` is the inverse.

    Args:
        image: uint8 ``[C, H, W]`` with one or three channels, on any device.

    Raises:
        ValueError: If it is anything else.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"to_png takes uint8 [1 or 3, H, W], got {str(image.dtype).removeprefix('torch.')} "
            f"{list(image.shape)}"
        )
    pixels = image.permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if image.shape[0] == 1 else pixels).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def from_png(text: str) -> Tensor:
    """The image of a text from :func:`to_png`, uint8 ``[C, H, W]``.

    Raises:
        ValueError: If the text is no such image.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("png",)) as image:
            pixels = np.array(image)
            mode = image.mode
    except (ValueError, OSError, SyntaxError) as error:  # Pillow reports broken chunks as SyntaxError
        raise ValueError(f"this text is no PNG in base64: {error}") from error
    if mode not in ("L", "RGB"):
        raise ValueError(f"a picture has one or three channels of 8 bits, not mode {mode}")
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()
