"""One object under a mask that keeps it and one that loses it, each filled in by the same MAE (Fig. 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from dppmask.data.png import from_png
from dppmask.errors import UserError
from dppmask.figures.patches import cover_hidden, show_image
from dppmask.figures.style import INK, QUIET, SERIES, WIDE, new_figure, styled
from dppmask.masks import Mask

Row = Mapping[str, Any]

OBJECT = "#ffb000"  # outline of the object
KEPT, LOST = SERIES[2], SERIES[0]
TITLES = [
    ("image", INK),
    ("object kept", KEPT),
    ("filled in", KEPT),
    ("object lost", LOST),
    ("filled in", LOST),
]
_TITLE = 12  # points: readable where the picture is as wide as a column, half of its size
_LABEL = 10.5


def draw(records: Sequence[Mapping[str, Any]], *, figure: Figure | None = None) -> Figure:
    """The objects that one record of ``LostObjects`` shows.

    Raises:
        UserError: If there are several records, or the record shows no object.
    """
    if len(records) > 1:
        raise UserError(f"LostObjects draws one record, got {len(records)}; give a file that holds only one")
    shown = records[0]["tables"]["shown"]
    if not shown:
        raise UserError(
            "this record of LostObjects shows no object that one mask keeps and another loses; evaluate with "
            "num_shown above 0, or with more images"
        )
    return draw_lost_objects(shown, figure=figure)


@styled()
def draw_lost_objects(shown: Sequence[Row], *, figure: Figure | None = None) -> Figure:
    """A row for each object: the image, then for both masks what is visible and what the network makes of it.

    The object is outlined. Below stand the share of it that is visible, and the error of its hidden pixels.
    """
    height, width = from_png(shown[0]["original"]).shape[1:]
    if figure is None:
        size = WIDE, (WIDE / 5 * height / width + 0.2) * len(shown) + 0.35
        figure = new_figure(*size, layout="compressed")
    axes = figure.subplots(len(shown), 5, squeeze=False)
    for column, (title, colour) in enumerate(TITLES):
        axes[0, column].set_title(title, color=colour, loc="center", fontsize=_TITLE)
    for places, row in zip(axes, shown, strict=True):
        draw_object(places, row)
    return figure


def draw_object(places: Sequence[Axes], row: Row) -> None:
    """One row of the figure, on five axes."""
    original, item = from_png(row["original"]), from_png(row["object_pixels"])[0] > 0
    _show(places[0], original, item)
    for kind, (visible, filled) in {"kept": places[1:3], "lost": places[3:5]}.items():
        made = row[kind]
        _show(visible, _covered(original, made["visible"], row["grid"]), item)
        _show(filled, from_png(made["reconstruction"]), item)
        visible.set_xlabel(
            f"{100 * made['visible_share']:.0f} % visible", color=QUIET, fontsize=_LABEL, labelpad=3
        )
        filled.set_xlabel(f"error {made['error']:.3f}", color=QUIET, fontsize=_LABEL, labelpad=3)


def _covered(original: Tensor, visible: Sequence[int], grid: Sequence[int]) -> Tensor:
    rows, columns = grid
    mask = Mask.from_ids_keep(torch.tensor([list(visible)]), num_patches=rows * columns)
    return cover_hidden(original[None], mask.masked, (rows, columns))[0]


def _show(axes: Axes, image: Tensor, item: Tensor) -> None:
    """An image with the outline of an object, bool ``[H, W]``, along the edges of its pixels."""
    show_image(axes, image)
    axes.add_collection(LineCollection(edges(item), colors=OBJECT, linewidths=1.2, capstyle="projecting"))


def edges(item: Tensor) -> list[list[tuple[float, float]]]:
    """The sides between pixels of an object, bool ``[H, W]``, and others or none, from (x, y) to (x, y)."""
    padded = F.pad(item.int(), (1, 1, 1, 1))
    across = (padded[1:, 1:-1] != padded[:-1, 1:-1]).nonzero().tolist()  # between two rows
    along = (padded[1:-1, 1:] != padded[1:-1, :-1]).nonzero().tolist()  # between two columns
    level = [[(x - 0.5, y - 0.5), (x + 0.5, y - 0.5)] for y, x in across]
    upright = [[(x - 0.5, y - 0.5), (x - 0.5, y + 0.5)] for y, x in along]
    return level + upright
