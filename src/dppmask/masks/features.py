"""Where a strategy that compares patches reads them from: tokens, pixels or a teacher."""

import math
from abc import ABC, abstractmethod
from typing import Literal, get_args

from torch import Tensor

from dppmask.dpp.checks import check_finite
from dppmask.errors import nearest
from dppmask.masks.base import Mask, MaskContext, MaskStrategy

Source = Literal["tokens", "pixels", "teacher"]


class FeatureMask(MaskStrategy, ABC):
    """What :class:`DPPMask` and :class:`KDPPMask` share: the patch features and the width of their kernel.

    Attributes:
        source: "tokens" (patch embedding + position), "pixels" (the patch's normalised pixels; no network
            needed) or "teacher" (the teacher's output patch tokens).
        bandwidth: σ of the Gaussian kernel on L2-normalised features.
    """

    def __init__(self, *, source: Source, bandwidth: float) -> None:
        super().__init__()
        if source not in get_args(Source):
            hint = nearest(str(source), get_args(Source))
            raise ValueError(f"source must say what describes a patch, got {source!r}; {hint}")
        if not 0.0 < bandwidth < math.inf:
            raise ValueError(f"bandwidth must be positive and finite, got {bandwidth}; the paper uses 1.0")
        self.source = source
        self.bandwidth = bandwidth
        self.needs = frozenset({"images" if source == "pixels" else source})

    def features(self, context: MaskContext) -> Tensor:
        """See :func:`read_features`."""
        return read_features(context, self.source)

    @abstractmethod
    def choose(self, features: Tensor, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask from features ``[B, N, D]``, noise ``[B, N]`` and one count or int64 ``[B]``."""


def read_features(context: MaskContext, source: Source) -> Tensor:
    """One feature vector per patch, float32 ``[B, N, D]``, detached: no gradient passes and none is cut.

    Raises:
        ValueError: If the context lacks the source, the source does not fit the grid, or a feature is not
            finite (looked at on the CPU only; on an accelerator that would wait for the device).
    """
    features = _raw_features(context, source).detach().float()
    if features.shape[:2] != (context.batch_size, context.num_patches):
        raise ValueError(
            f"{source} must have shape [{context.batch_size}, {context.num_patches}, …] "
            f"for grid {context.grid}, got {list(features.shape)}"
        )
    check_finite(features, source)
    return features


def patch_pixels(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cut images ``[B, C, H, W]`` into flattened patches ``[B, N, C·h·w]``, row-major.

    Raises:
        ValueError: If the grid does not divide the image.
    """
    batch, channels, height, width = images.shape
    rows, columns = grid
    if height % rows or width % columns:
        raise ValueError(
            f"the grid must divide the image, got grid {rows} × {columns} for {height} × {width} pixels"
        )
    patches = images.reshape(batch, channels, rows, height // rows, columns, width // columns)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


def _raw_features(context: MaskContext, source: Source) -> Tensor:
    if source == "pixels":
        if context.images is None or context.grid is None:
            raise ValueError(
                "source 'pixels' needs images and grid; pass both to MaskContext or use source 'tokens'"
            )
        return patch_pixels(context.images, context.grid)
    if source == "teacher":
        if (teacher := context.teacher) is None:
            raise ValueError(
                "source 'teacher' needs a teacher; pass one to MaskContext or use source 'tokens'"
            )
        return teacher.patches
    if (tokens := context.tokens) is None:
        raise ValueError("source 'tokens' needs tokens; pass them to MaskContext or use source 'pixels'")
    return tokens
