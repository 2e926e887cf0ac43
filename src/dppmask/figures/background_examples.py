"""Images with other backgrounds and without foreground, side by side (Fig. 5 of the paper)."""

from pathlib import Path

from matplotlib.figure import Figure

from dppmask.data.background_builder import variant_source
from dppmask.data.base import ImageSource, Split
from dppmask.evaluation.variant_examples import Examples, background_examples
from dppmask.figures.patches import show_image
from dppmask.figures.style import QUIET, check_picture_path, new_figure, save_figure, styled

_CELL = 1.1  # inches per image
_TITLES = {
    "original": "original",
    "only_fg": "only\nforeground",
    "mixed_same": "mixed,\nsame class",
    "mixed_rand": "mixed,\nrandom class",
    "mixed_next": "mixed,\nnext class",
    "no_fg": "foreground\nblack",
    "only_bg_b": "box black",
    "only_bg_t": "box tiled",
}


@styled()
def draw_examples(examples: Examples, *, figure: Figure | None = None) -> Figure:
    """One row per foreground, one column per variant."""
    num_rows, num_columns = len(examples.classes), len(examples.columns)
    if figure is None:
        figure = new_figure(_CELL * num_columns + 0.3, _CELL * num_rows + 0.5, layout="compressed")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    for column, (name, images) in enumerate(examples.columns.items()):
        for row, image in enumerate(images):
            if image is None:
                axes[row, column].set_axis_off()
            else:
                show_image(axes[row, column], image)
        axes[0, column].set_title(_TITLES[name], loc="center", fontsize=8)
    for row, name in enumerate(examples.classes):
        axes[row, 0].set_ylabel(name, color=QUIET, fontsize=7)
    return figure


def draw_variants(
    *,
    data: ImageSource,
    out: str = "variants.png",
    num_images: int = 4,
    split: Split = "val",
    seed: int = 0,
) -> Path:
    """Draw images in all the background variants there are.

    Args:
        data: Scenes with the task single, IN9, or labelled images with object masks.
        out: The picture to write: .png, .pdf or .svg.
        num_images: How many images.
        split: Which part of the data: "train" or "val".
        seed: Of the choice of backgrounds, where foregrounds are cut out.
    """
    path = check_picture_path(out)
    examples = background_examples(variant_source(data, seed=seed), num_images, split=split)
    return save_figure(draw_examples(examples), path)
