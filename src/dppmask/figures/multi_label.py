"""Average precision label by label, of one or several evaluations, beside how frequent each label is."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dppmask.errors import UserError
from dppmask.figures.series import series_names
from dppmask.figures.style import DPP, INK, QUIET, SERIES, WIDE, new_figure, styled

CONSTANT = "share of images with the label, which a constant score reaches"
MOST = len(SERIES)  # evaluations in one picture
_LABELS_PER_COLUMN = 27
_ROW = 0.155  # inches


@dataclass(frozen=True)
class Series:
    """One evaluation.

    Attributes:
        name: What was evaluated.
        precisions: Label → average precision.
        mean: mAP and its standard error.
    """

    name: str
    precisions: dict[str, float]
    mean: tuple[float, float]

    @property
    def caption(self) -> str:
        """Name and mAP."""
        mean, error = self.mean
        return f"{self.name}: mAP {100 * mean:.1f} ± {100 * error:.1f} %"


@dataclass(frozen=True)
class LabelBars:
    """What is drawn.

    Attributes:
        groups: Title ("" if there is one only) → labels, in the order from top to bottom.
        shares: Label → share of the images that have it, the average precision of a constant score.
        series: The evaluations.
    """

    groups: dict[str, list[str]]
    shares: dict[str, float]
    series: list[Series]


def label_bars(records: Sequence[Mapping[str, Any]]) -> LabelBars:
    """Sort the tables of ``MultiLabel`` records.

    Labels of two words, where several share the second one, as in "red cube", are grouped by it; others are
    sorted by the average precision of the first evaluation.

    Raises:
        UserError: If the records are of different images, or too many.
    """
    tables = [record["tables"]["labels"] for record in records]
    counts = [[(row["label"], row["positives"]) for row in table] for table in tables]
    if any(other != counts[0] for other in counts):
        raise UserError("results were evaluated on different images; draw them apart")
    if len(records) > MOST:
        raise UserError(f"results hold {len(records)} evaluations, and at most {MOST} can be told apart")
    series = [
        Series(
            name,
            {row["label"]: row["average_precision"] for row in table},
            (record["metrics"]["mAP"], record["standard_errors"]["mAP"]),
        )
        for name, record, table in zip(series_names(records), records, tables, strict=True)
    ]
    shares = {row["label"]: row["share"] for row in tables[0]}
    return LabelBars(group_labels(series[0].precisions), shares, series)


def group_labels(precisions: Mapping[str, float]) -> dict[str, list[str]]:
    """Labels by their last word where that makes few groups of equal size, else all sorted by value."""
    groups: dict[str, list[str]] = {}
    for label in precisions:
        groups.setdefault(label.rpartition(" ")[2], []).append(label)
    sizes = {len(labels) for labels in groups.values()}
    if len(groups) > 1 and len(sizes) == 1 and sizes.pop() > 1:
        return groups
    return {"": sorted(precisions, key=lambda label: -precisions[label])}


def draw(records: Sequence[Mapping[str, Any]], *, figure: Figure | None = None) -> Figure:
    """The figure of ``MultiLabel`` records, for ``dppmask plot``."""
    return draw_label_bars(label_bars(records), figure=figure)


@styled()
def draw_label_bars(bars: LabelBars, *, figure: Figure | None = None) -> Figure:
    """A panel a group, or columns of a long list; one evaluation as bars, several as points."""
    panels = [
        (title, labels[first : first + _LABELS_PER_COLUMN])
        for title, labels in bars.groups.items()
        for first in range(0, len(labels), _LABELS_PER_COLUMN)
    ]
    most = max(len(labels) for _, labels in panels)
    height = _ROW * most + 0.75 + 0.2 * len(bars.series)
    figure = new_figure(WIDE, height) if figure is None else figure
    axes = figure.subplots(1, len(panels), sharex=True, squeeze=False)[0]
    for place, (title, labels) in zip(axes, panels, strict=True):
        draw_labels(place, labels, bars)
        if title:
            place.set_yticklabels([label.removesuffix(f" {title}") for label in labels])
        place.set_ylim(most - 0.4, -0.6)  # equal rows in all panels, from the top
        place.set_title(title)
    shown = zip(*axes[0].get_legend_handles_labels(), strict=True)
    handles, names = zip(*sorted(shown, key=lambda entry: entry[1] == CONSTANT), strict=True)  # which is last
    figure.legend(handles, names, loc="outside lower left")
    return figure


@styled()
def draw_labels(axes: Axes, labels: Sequence[str], bars: LabelBars) -> None:
    """Some labels from top to bottom."""
    points: dict[str, Any] = {"linestyle": "none", "clip_on": False, "zorder": 3}
    rows = range(len(labels))
    count = len(bars.series)
    for number, (series, colour) in enumerate(zip(bars.series, SERIES, strict=False)):
        values = [series.precisions[label] for label in labels]
        if count == 1:
            axes.barh(rows, values, height=0.72, color=DPP, label=series.caption)
        else:
            beside = [row + 0.5 * (number / (count - 1) - 0.5) for row in rows]  # equal ones stay apart
            axes.plot(
                values, beside, marker="o", color=colour, markersize=3.5, label=series.caption, **points
            )
    shares = [bars.shares[label] for label in labels]
    axes.plot(
        shares, rows, marker="|", color=INK, markersize=7, markeredgewidth=1.4, label=CONSTANT, **points
    )
    axes.set_yticks(rows, [textwrap.shorten(label, 18, placeholder="…") for label in labels])
    axes.tick_params(axis="y", length=0, labelsize=7, labelcolor=QUIET)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("average precision")
