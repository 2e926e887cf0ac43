"""One object under a mask that keeps it and one that loses it, each filled in by the same MAE (Fig. 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from torch import Tensor

from dppmask.data.png import from_png
from dppmask.errors import UserError
from dppmask.figures.patches import cover_hidden, show_image
from dppmask.figures.style import INK, QUIET, SERIES, WIDE, new_figure, styled
from dppmask.masks import Mask

Row = Mapping[str, Any]

OBJECT = "#ffb000"  # outline of the object
KEPT, LOST = SERIES[2], SERIES[0]
TITLES = {"kept": "object kept", "lost": "object lost"}
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

    Below each reconstruction stand the visible share of the object and the error of its hidden pixels.
    """
    height, width = from_png(shown[0]["original"]).shape[1:]
    cell = WIDE / 5
    if figure is None:
        figure = new_figure(WIDE, (cell * height / width + 0.45) * len(shown) + 0.6, layout="compressed")
    axes = figure.subplots(len(shown), 5, squeeze=False)
    for places, row in zip(axes, shown, strict=True):
        draw_object(places, row)
    return figure
