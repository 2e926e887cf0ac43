"""Rows of a table as points: every seed, the mean, and a line through the first row (Fig. 7 of the paper)."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dppmask.figures.style import DPP, RANDOM, WIDE, new_figure, styled

Rows = Mapping[str, Sequence[float]]

_HEAD, _ROW = 0.8, 0.28  # inches


@styled()
def draw_row_dots(panels: Mapping[str, Rows], *, figure: Figure | None = None) -> Figure:
    """One panel per quantity, one line per row; the first row of each is the baseline.

    Args:
        panels: Name of the quantity with its unit → name of the row → its value with each seed.
        figure: Where to draw; a new one by default.
    """
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    figure = new_figure(WIDE, _HEAD + _ROW * len(names)) if figure is None else figure
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for place, (quantity, rows) in zip(axes, panels.items(), strict=True):
        draw_dots(place, rows, names)
        place.set_xlabel(quantity)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)  # the first row on top
    return figure


@styled()
def draw_dots(axes: Axes, rows: Rows, names: Sequence[str]) -> None:
    """Small points for the seeds, a large one for their mean; a dashed line through that of the first row."""
    for index, (name, values) in enumerate(rows.items()):
        color = DPP if index else RANDOM
        height = [names.index(name)] * len(values)
        axes.scatter(values, height, s=14, color=color, alpha=0.4, linewidths=0)
        axes.scatter([fmean(values)], height[:1], s=34, color=color)
        if index == 0:
            axes.axvline(fmean(values), color=color, linestyle="--", linewidth=1, zorder=0)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
