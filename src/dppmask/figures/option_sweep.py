"""Scores against an option that was swept: mask ratio, purge ratio, … (Fig. 4 of the paper)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dppmask.figures.style import SERIES, WIDE, new_figure, styled

_NUDGE = 0.004  # of the range of the option: bars of different lines stand beside each other


class Point(NamedTuple):
    """One measured value.

    Attributes:
        at: Value of the option.
        mean: Over seeds.
        deviation: Of single seeds.
    """

    at: float
    mean: float
    deviation: float


Lines = Mapping[str, Sequence[Point]]


@styled()
def draw_option_sweep(panels: Mapping[str, Lines], *, option: str, figure: Figure | None = None) -> Figure:
    """One panel per score; the first line of each is the baseline.

    Args:
        panels: Name of the score with its unit → name of the line → its points.
        option: What is swept.
        figure: Where to draw; a new one by default.
    """
    figure = new_figure(WIDE, 3.0) if figure is None else figure
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for place, (score, lines) in zip(axes, panels.items(), strict=True):
        draw_lines(place, lines)
        place.set_xlabel(option)
        place.set_ylabel(score)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


@styled()
def draw_lines(axes: Axes, lines: Lines) -> None:
    """Means joined by lines, bars of one standard deviation."""
    places = [point.at for points in lines.values() for point in points]
    nudge = _NUDGE * (max(places) - min(places))
    for index, (name, points) in enumerate(lines.items()):
        ordered = sorted(points)
        axes.errorbar(
            [point.at + nudge * (index - (len(lines) - 1) / 2) for point in ordered],
            [point.mean for point in ordered],
            yerr=[point.deviation for point in ordered],
            color=SERIES[index % len(SERIES)],
            marker="o",
            markersize=3.5,
            capsize=2,
            elinewidth=1,
            label=name,
        )
    axes.set_xticks(sorted(set(places)))
