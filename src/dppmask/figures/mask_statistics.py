"""What masks do, against the purge ratio: objects lost, greedy picks, log-determinant, spread, overlap.

Below it the masks of a few images, where the record holds some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import PercentFormatter

from dppmask.errors import UserError
from dppmask.figures.mask_gallery import Gallery, fill_gallery, gallery_size
from dppmask.figures.shown_masks import recorded_gallery
from dppmask.figures.style import DPP, RANDOM, SERIES, WIDE, new_figure, styled
from dppmask.figures.sweeps import Sweep, sweep_of


@dataclass(frozen=True)
class Panel:
    """How one statistic is drawn.

    Attributes:
        title: What it is.
        unit: Label of the axis.
        percent: Whether it is a share, drawn from 0 on in percent.
    """

    title: str
    unit: str = ""
    percent: bool = False


PANELS = {
    "objects_lost": Panel("objects lost", "objects under 5 % visible", percent=True),
    "visible_share": Panel("visible share of objects", "mean share of pixels", percent=True),
    "greedy_picks": Panel("greedy picks", "patches per mask"),
    "log_det": Panel("diversity", "log-determinant of kernel"),
    "spread": Panel("spatial spread", "distance, relative to random"),
    "overlap": Panel("overlap of two masks", "share of visible patches", percent=True),
}


def sweeps(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Sweep]:
    """Sort the tables of a ``MaskStatistics`` result by statistic, family and purge ratio."""
    found = {}
    for name in PANELS:
        if rows := [row for row in tables["statistics"] if row["statistic"] == name]:
            found[name] = sweep_of(rows, tables["strategies"])
    return found


def draw(records: Sequence[Mapping[str, Any]], *, figure: Figure | None = None) -> Figure:
    """The statistics of one record of ``MaskStatistics``, and below them the masks that it shows.

    Raises:
        UserError: If there are several records: their masks were drawn on different images.
    """
    if len(records) > 1:
        raise UserError(
            f"MaskStatistics draws one record, got {len(records)}; give a file that holds only one"
        )
    tables = records[0]["tables"]
    found = sweeps(tables)
    if not tables.get("shown"):
        return draw_statistics(found, figure=figure)
    return draw_with_gallery(found, recorded_gallery(tables["shown"], tables["strategies"]), figure=figure)


@styled()
def draw_with_gallery(
    found: Mapping[str, Sweep], gallery: Gallery, *, figure: Figure | None = None
) -> Figure:
    """Statistics above, masks of a few images below."""
    above, (width, below) = _height(found), gallery_size(gallery)
    figure = new_figure(max(WIDE, width), above + below) if figure is None else figure
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[above, below])[:, 0]
    _fill(parts[0], found)
    fill_gallery(parts[1], gallery)
    return figure


@styled()
def draw_statistics(found: Mapping[str, Sweep], *, figure: Figure | None = None) -> Figure:
    """One panel per statistic, three a row; bars and bands are ± one standard error."""
    figure = new_figure(WIDE, _height(found)) if figure is None else figure
    _fill(figure, found)
    return figure


def _height(found: Mapping[str, Sweep]) -> float:
    return 2.35 * _num_rows(found) + 0.3


def _num_rows(found: Mapping[str, Sweep]) -> int:
    return -(-len(found) // 3)


def _fill(figure: Figure | SubFigure, found: Mapping[str, Sweep]) -> None:
    axes = figure.subplots(_num_rows(found), min(3, len(found)), squeeze=False).flatten()
    for place, (name, sweep) in zip(axes, found.items(), strict=False):
        draw_sweep(place, sweep, PANELS[name])
    for place in axes[len(found) :]:
        place.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


@styled()
def draw_sweep(axes: Axes, sweep: Sweep, panel: Panel) -> None:
    """One statistic against τ, with random masks as a line across."""
    if sweep.random is not None:
        value, error = sweep.random
        axes.axhline(value, color=RANDOM, linewidth=1.4, linestyle=(0, (5, 2)), label="random masks")
        axes.axhspan(value - error, value + error, color=RANDOM, alpha=0.15, linewidth=0)
    colours = [DPP, *(colour for colour in SERIES if colour not in (DPP, RANDOM))]
    for (name, curve), colour in zip(sweep.curves.items(), colours, strict=False):
        axes.errorbar(
            curve.purge_ratios,
            curve.values,
            yerr=curve.standard_errors,
            color=colour,
            marker="o",
            markersize=3.5,
            capsize=2,
            elinewidth=1,
            label=f"DPP masks, {name}" if name else "DPP masks",
        )
    axes.set_title(panel.title)
    axes.set_xlabel("purge ratio τ")
    axes.set_ylabel(panel.unit)
    axes.set_xlim(-0.03, 1.03)
    if panel.percent:
        axes.set_ylim(0, min(axes.get_ylim()[1], 1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
