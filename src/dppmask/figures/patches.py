"""Images with their patches: back to pixels, hidden patches covered, chosen patches outlined."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from dppmask.data.transforms import denormalise
from dppmask.evaluation.pixels import Grid, as_uint8, replace_hidden
from dppmask.figures.style import INK, PAPER, QUIET

COVER = 0.88  # how much of a hidden patch the cover takes; the rest shows what is hidden
_INSET = 0.06  # outlines stay inside their patch by this share of it, so that neighbours do not touch
_LINE = 12  # points: width of an outline times patches per side, within bounds


def to_uint8(images: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo the normalisation: ``[B, C, H, W]`` → uint8, clipped."""
    return as_uint8(denormalise(images.detach().float().cpu(), mean, std))


def cover_hidden(images: Tensor, masked: Tensor, grid: Grid) -> Tensor:
    """Blend the hidden patches to light grey; visible pixels stay as they are.

    Args:
        images: uint8 ``[B, C, H, W]``.
        masked: bool ``[B, N]``; True = hidden.
        grid: (rows, columns) of patches.
    """
    paper = 255 * sum(to_rgb(PAPER)) / 3
    covered = ((1 - COVER) * images.float() + COVER * paper).round().to(torch.uint8)
    return replace_hidden(images, covered, masked, grid)


def show_image(axes: Axes, image: Tensor) -> None:
    """Draw uint8 ``[C, H, W]`` with one or three channels, without ticks and frame."""
    axes.imshow(image.expand(3, -1, -1).permute(1, 2, 0).numpy())
    _bare(axes)


def show_heat(
    axes: Axes,
    values: Tensor,
    *,
    grid: Grid,
    image_size: tuple[int, int],
    colours: str,
    scale: Normalize | None = None,
) -> None:
    """Draw a value per patch, ``[N]``, over the area of an image; the smallest and largest stand below it.

    Args:
        axes: Where.
        values: Of the patches; NaN stays white.
        grid: (rows, columns) of patches.
        image_size: (height, width) in pixels.
        colours: Name of a matplotlib colour map.
        scale: From values to colours; None = from the smallest to the largest.
    """
    height, width = image_size
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    cells = values.unflatten(0, grid).numpy()
    axes.imshow(cells, cmap=colours, norm=scale, extent=extent, interpolation="nearest")
    low, high = (value.item() for value in values[~values.isnan()].aminmax())
    axes.set_xlabel(f"{low:.2f} to {high:.2f}", color=QUIET, fontsize=8, labelpad=2)
    _bare(axes)


def outline(
    axes: Axes, chosen: Tensor, *, grid: Grid, image_size: tuple[int, int], colour: str, name: str
) -> None:
    """Draw a box inside every chosen patch, bool ``[N]``, of an image that :func:`show_image` drew.

    Args:
        axes: Where the image is.
        chosen: Which patches.
        grid: (rows, columns) of patches.
        image_size: (height, width) in pixels.
        colour: Of the line, which gets a thin dark rim to be seen on any image.
        name: Label of the collection of boxes.
    """
    height, width = image_size[0] / grid[0], image_size[1] / grid[1]
    boxes = [
        Rectangle(
            ((column + _INSET) * width - 0.5, (row + _INSET) * height - 0.5),
            (1 - 2 * _INSET) * width,
            (1 - 2 * _INSET) * height,
        )
        for row, column in chosen.cpu().unflatten(0, grid).nonzero().tolist()
    ]
    line = min(max(_LINE / max(grid), 0.6), 1.3)
    rim = withStroke(linewidth=1.9 * line, foreground=INK, alpha=0.55)
    axes.add_collection(
        PatchCollection(
            boxes,
            facecolors="none",
            edgecolors=colour,
            linewidths=line,
            joinstyle="miter",
            path_effects=[rim],
            label=name,
        )
    )


def _bare(axes: Axes) -> None:
    """Without ticks, frame and grid."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
