"""What an MAE makes of the visible patches: random against DPP masks (Fig. 8 of the paper)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn

from dppmask.evaluation.pixels import Grid, as_uint8, predicted_pixels, replace_hidden, true_pixels
from dppmask.figures.patches import cover_hidden, outline, show_image
from dppmask.figures.style import BOTH, DPP, RANDOM, SWATCHES, new_figure, styled
from dppmask.masks.base import Mask, MaskStrategy, num_masked_for
from dppmask.models.mae import MAE
from dppmask.rng import fold_in

COLOURS = {
    "visible in both masks": BOTH,
    "only in the random mask": RANDOM,
    "only in the DPP mask": DPP,
}
_CELL = 1.75  # inches per image
_TITLE = 11  # points: readable where the picture is as wide as a column, half of its size
_EDGE = "#8c959f"  # of legend squares, where white would be lost


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What one model makes of one mask.

    Attributes:
        name: Title of the column.
        mask: Of these images.
        images: uint8 ``[B, C, H, W]``: visible patches as they are, hidden ones as predicted.
    """

    name: str
    mask: Mask
    images: Tensor


@dataclass(frozen=True, eq=False)
class Comparison:
    """Reconstructions of the same images from two masks drawn with the same noise.

    Attributes:
        originals: uint8 ``[B, C, H, W]``.
        grid: (rows, columns) of patches.
        random: From random masks.
        dpp: From DPP masks.
    """

    originals: Tensor
    grid: Grid
    random: Reconstruction
    dpp: Reconstruction


def reconstruct(model: MAE, images: Tensor, mask: Mask) -> Tensor:
    """Predict the hidden patches and show them in place, uint8 ``[B, C, H, W]``.

    Per-patch normalisation is undone with the mean and deviation of the true patch, the normalisation of
    images with the encoder's statistics; visible patches keep their exact pixels.

    Args:
        model: Trained, or not; its mode is left as it was.
        images: Normalised, ``[B, C, H, W]``.
        mask: Equally many patches hidden in each image.
    """
    with _evaluating(model):
        predicted = as_uint8(predicted_pixels(model, model.context(images), mask))
    return replace_hidden(as_uint8(true_pixels(model, images)), predicted, mask.masked, model.encoder.grid)


def compare(
    images: Tensor,
    random: tuple[MAE, MaskStrategy],
    dpp: tuple[MAE, MaskStrategy],
    *,
    mask_ratio: float = 0.75,
    seed: int = 0,
) -> Comparison:
    """Reconstruct the same images with two models, each with its own masks from the same noise.

    Args:
        images: Normalised, ``[B, C, H, W]``.
        random: The model of the left column and its strategy.
        dpp: The model of the right column and its strategy.
        mask_ratio: Share of hidden patches.
        seed: Of the noise.

    Raises:
        ValueError: If the two models have different grids of patches.
    """
    grid = random[0].encoder.grid
    if dpp[0].encoder.grid != grid:
        raise ValueError(
            f"both models must have the same grid of patches, got {grid} and {dpp[0].encoder.grid}"
        )

    def one(name: str, model: MAE, strategy: MaskStrategy) -> Reconstruction:
        with _evaluating(model):
            num_masked = num_masked_for(mask_ratio, grid[0] * grid[1])
            mask = strategy(model.context(images), num_masked, generator=fold_in(seed))
        return Reconstruction(name, mask, reconstruct(model, images, mask))

    originals = as_uint8(true_pixels(random[0], images))
    return Comparison(originals, grid, one("MAE, random masks", *random), one("MAE, DPP masks", *dpp))


@styled()
def draw_comparison(comparison: Comparison, *, figure: Figure | None = None) -> Figure:
    """One row per image: original, the patches either mask shows, and what each model makes of its own.

    White boxes are visible in both masks, red ones only in the random mask, blue ones only in the DPP mask.
    """
    num_rows, (height, width) = len(comparison.originals), comparison.originals.shape[-2:]
    if figure is None:
        figure = new_figure(4 * _CELL, (_CELL - 0.05) * num_rows * height / width + 0.7, layout="compressed")
    axes = figure.subplots(num_rows, 4, squeeze=False)
    boxes = which_boxes(comparison)
    for column, (title, images, names) in enumerate(_columns(comparison)):
        axes[0, column].set_title(title, loc="center", fontsize=_TITLE)
        for row, image in enumerate(images):
            show_image(axes[row, column], image)
            for name in names:
                outline(
                    axes[row, column],
                    boxes[name][row],
                    grid=comparison.grid,
                    image_size=(height, width),
                    colour=COLOURS[name],
                    name=name,
                )
    handles = [
        Patch(facecolor=colour, edgecolor=_EDGE, linewidth=0.8, label=name)
        for name, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=_TITLE, **SWATCHES)
    return figure


def which_boxes(comparison: Comparison) -> dict[str, Tensor]:
    """Which patches get a box of each of the ``COLOURS``, bool ``[B, N]``."""
    random, dpp = ~comparison.random.mask.masked.cpu(), ~comparison.dpp.mask.masked.cpu()
    return dict(zip(COLOURS, (random & dpp, random & ~dpp, dpp & ~random), strict=True))


def _columns(comparison: Comparison) -> list[tuple[str, Tensor, tuple[str, ...]]]:
    """Title, images and names of the boxes of each column."""
    both, only_random, only_dpp = COLOURS
    hidden = comparison.random.mask.masked & comparison.dpp.mask.masked
    return [
        ("original", comparison.originals, ()),
        (
            "visible patches",
            cover_hidden(comparison.originals, hidden, comparison.grid),
            (both, only_random, only_dpp),
        ),
        (comparison.random.name, comparison.random.images, (both, only_random)),
        (comparison.dpp.name, comparison.dpp.images, (both, only_dpp)),
    ]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradient; the mode comes back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
