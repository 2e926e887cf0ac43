"""Mask strategies side by side, on the same images and the same noise (Fig. 3 of the paper)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from torch import Tensor

from dppmask import specs
from dppmask.data.base import ImageSource, Split
from dppmask.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from dppmask.errors import UserError
from dppmask.evaluation.base import Subject
from dppmask.evaluation.features import eval_transform_of
from dppmask.evaluation.mask_batches import MIDWAY, make_context
from dppmask.figures.patches import Grid, cover_hidden, outline, show_image, to_uint8
from dppmask.figures.style import PAPER, QUIET, SWATCHES, check_picture_path, new_figure, save_figure, styled
from dppmask.masks.base import Mask, MaskStrategy, num_masked_for
from dppmask.models.checkpoint import load_encoder
from dppmask.models.encoder import Encoder
from dppmask.rng import fold_in, seeded

log = logging.getLogger(__name__)

GREEDY = "#ffb000"  # outline of greedy picks
_CELL = 1.4  # inches per image
_SYMBOLS = {"purge_ratio": "τ"}  # arguments that are always shown, and how


@dataclass(frozen=True, eq=False)
class Gallery:
    """What is drawn.

    Attributes:
        images: uint8 ``[B, C, H, W]``.
        grid: (rows, columns) of patches.
        masks: Title → mask of these images.
        note: One line below the picture.
    """

    images: Tensor
    grid: Grid
    masks: dict[str, Mask]
    note: str = ""


def make_gallery(
    images: Tensor,
    strategies: Sequence[MaskStrategy],
    *,
    grid: Grid,
    mask_ratio: float = 0.75,
    seed: int = 0,
    encoder: Encoder | None = None,
    note: str = "",
    progress: float = MIDWAY,
) -> Gallery:
    """The masks of every strategy for the same images; each strategy gets the same noise.

    Args:
        images: Normalised, ``[B, C, H, W]``.
        strategies: All different.
        grid: (rows, columns) of patches.
        mask_ratio: Share of hidden patches.
        seed: Of the noise.
        encoder: Gives tokens, and stands in for a teacher; None = strategies may read images alone.
        note: One line below the picture.
        progress: Share of the training done, for strategies that change over it.

    Raises:
        ValueError: If a strategy reads what is not there, or the ratio is outside (0, 1).
        UserError: If two strategies are the same.
    """
    titles = [title_of(strategy) for strategy in strategies]
    if len(set(titles)) < len(titles):
        shown = ", ".join(title.replace("\n", " ") for title in titles)
        raise UserError(f"the masks must all differ, got {shown}")
    needs = frozenset().union(*(strategy.needs for strategy in strategies))
    context = make_context(images, grid, Subject(encoder), needs, progress=progress)
    num_masked = num_masked_for(mask_ratio, grid[0] * grid[1])
    with torch.no_grad():
        masks = [s(context, num_masked, generator=fold_in(seed)) for s in strategies]
    mean, std = (encoder.mean, encoder.std) if encoder else (IMAGENET_MEAN, IMAGENET_STD)
    return Gallery(to_uint8(images, mean=mean, std=std), grid, dict(zip(titles, masks, strict=True)), note)


def title_of(strategy: MaskStrategy) -> str:
    r"""The class, τ, and below them the arguments that differ from their defaults.

    >>> title_of(DPPMask(purge_ratio=0.1, source="pixels"))
    'DPPMask τ=0.1\\nsource=pixels'
    """
    return described_title(specs.describe(strategy))


def described_title(spec: Mapping[str, Any]) -> str:
    """The title of a strategy as plain data, ``class_path`` and ``init_args``."""
    defaults = specs.describe(specs.locate(spec["class_path"]))["init_args"]
    title, below = spec["class_path"].rpartition(".")[2], ""
    for name, value in spec["init_args"].items():
        if name in _SYMBOLS:
            title += f" {_SYMBOLS[name]}={value:g}"
        elif isinstance(value, Mapping):
            below += f"\nof {described_title(value)}"
        elif value != defaults.get(name):
            below += f"\n{name}={value}"
    return title + below


@styled()
def draw_gallery(gallery: Gallery, *, figure: Figure | None = None) -> Figure:
    """One row per image, one column per strategy; hidden patches covered, greedy picks outlined."""
    figure = new_figure(*gallery_size(gallery), layout="compressed") if figure is None else figure
    fill_gallery(figure, gallery)
    return figure


def gallery_size(gallery: Gallery) -> tuple[float, float]:
    """Width and height of the picture in inches."""
    num_columns = 1 + len(gallery.masks)
    height, width = gallery.images.shape[-2:]
    return max(_CELL * num_columns, 3 * _CELL), (_CELL - 0.05) * len(gallery.images) * height / width + 0.9


def fill_gallery(figure: Figure | SubFigure, gallery: Gallery) -> None:
    """What :func:`draw_gallery` draws, as a part of another figure."""
    height, width = gallery.images.shape[-2:]
    axes = figure.subplots(len(gallery.images), 1 + len(gallery.masks), squeeze=False)
    for row, image in enumerate(gallery.images):
        show_image(axes[row, 0], image)
    axes[0, 0].set_title("original", loc="center")
    axes[-1, 0].set_xlabel("mean per image:", color=QUIET, fontsize=8)
    for column, (title, mask) in enumerate(gallery.masks.items(), start=1):
        covered = cover_hidden(gallery.images, mask.masked, gallery.grid)
        for row, image in enumerate(covered):
            show_image(axes[row, column], image)
            if mask.scores is not None:
                outline(
                    axes[row, column],
                    mask.scores[row] > 0,
                    grid=gallery.grid,
                    image_size=(height, width),
                    colour=GREEDY,
                    name="greedy picks",
                )
        axes[0, column].set_title(title, loc="center")
        axes[-1, column].set_xlabel(_count(mask), color=QUIET, fontsize=8)
    legend = figure.legend(
        handles=_legend(gallery), title=gallery.note, loc="outside lower center", ncols=3, **SWATCHES
    )
    legend.get_title().set_color(QUIET)


def _count(mask: Mask) -> str:
    visible = (~mask.masked).sum(1).double().mean().item()
    if mask.scores is None:
        return f"{visible:.3g} of {mask.num_patches} visible"
    greedy = (mask.scores > 0).sum(1).double().mean().item()
    return f"{greedy:.3g} of {visible:.3g} greedy"


def _legend(gallery: Gallery) -> list[Patch]:
    visible, hidden = ("visible", "#8c959f"), ("hidden", PAPER)
    if any(mask.scores is not None for mask in gallery.masks.values()):
        greedy = Patch(facecolor="#8c959f", edgecolor=GREEDY, linewidth=1.8, label="visible, picked greedily")
        visible = ("visible otherwise", "#8c959f")
        return [greedy, *(Patch(facecolor=colour, label=label) for label, colour in (visible, hidden))]
    return [Patch(facecolor=colour, label=label) for label, colour in (visible, hidden)]


def draw_masks(
    *,
    data: ImageSource,
    mask: list[MaskStrategy],
    mask_ratio: float = 0.75,
    out: str = "gallery.png",
    num_images: int = 6,
    split: Split = "train",
    run: str | None = None,
    backbone: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    seed: int = 0,
) -> Path:
    """Draw mask strategies side by side, on the same images and with the same noise.

    Args:
        data: The images; those drawn are spread evenly over it.
        mask: The strategies; --mask+ adds one.
        mask_ratio: Share of hidden patches.
        out: The picture to write: .png, .pdf or .svg.
        num_images: How many images.
        split: Which part of the data: "train" or "val".
        run: A run, or the folder or file of an encoder, whose tokens are compared. Without it the tokens are
            those of a freshly initialised encoder; strategies that read pixels need none.
        backbone: The architecture of that fresh encoder, vit_small_patch16_224 by default.
        image_size: Side of the images in pixels, or (height, width); that of the run, else 224.
        patch_size: Side of a patch in pixels: 16 by default, but that of the run where there is one.
        seed: Of the noise and of a fresh encoder.
    """
    path = check_picture_path(out)
    encoder, note = encoder_for(
        mask, run=run, backbone=backbone, image_size=image_size, patch_size=patch_size, seed=seed
    )
    images = spread_images(data.split(split), num_images, encoder)
    try:
        gallery = make_gallery(
            images,
            mask,
            grid=encoder.grid,
            mask_ratio=mask_ratio,
            seed=seed,
            encoder=encoder,
            note=note,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    return save_figure(draw_gallery(gallery), path)


def spread_images(source: ImageSource, count: int, encoder: Encoder) -> Tensor:
    """Up to ``count`` images ``[B, C, H, W]`` as the encoder wants them, evenly spread over a source.

    Spread, because folders are sorted by class.

    Raises:
        UserError: If the count is below 1.
    """
    if count < 1:
        raise UserError(f"num_images must be at least 1, got {count}")
    count, transform = min(count, len(source)), eval_transform_of(encoder, source)
    return torch.stack([transform(source[i * len(source) // count].image)[0] for i in range(count)])


def encoder_for(
    masks: Sequence[MaskStrategy],
    *,
    run: str | None,
    backbone: str | None,
    image_size: int | tuple[int, int] | None,
    patch_size: int | None,
    seed: int,
) -> tuple[Encoder, str]:
    """The encoder of a run, or one as it is before training, and a line that says whose tokens are compared.

    The line is empty where no strategy reads an encoder; untrained tokens are warned of.

    Args:
        masks: The strategies.
        run: A run, or the folder or file of an encoder; None = a fresh one.
        backbone: The architecture of a fresh one; None = vit_small_patch16_224.
        image_size: Side in pixels, or (height, width); None = that of the run, else 224.
        patch_size: Side of a patch of a fresh one; None = 16.
        seed: Of a fresh one's weights.

    Raises:
        UserError: If what a run decides is given beside it.
    """
    readers = [strategy for strategy in masks if strategy.needs - {"images"}]
    if run is None:
        name, size, patch = backbone or "vit_small_patch16_224", image_size or 224, patch_size or 16
        with seeded(seed):
            encoder = Encoder(name, image_size=size, patch_size=patch)
        note = f"tokens of a freshly initialised {name}"
        if readers:
            log.warning("%s: %s; give a run for trained ones", type(readers[0]).__name__, note)
    elif backbone is not None or patch_size is not None:
        raise UserError(f"backbone and patch_size are those of the run {run}; leave them out")
    else:
        encoder, note = load_encoder(run, image_size=image_size), f"tokens of {run}"
    return encoder, note if readers else ""
