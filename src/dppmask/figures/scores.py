"""Metrics of one or several evaluations beside their baselines: the figure of protocols without their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dppmask.errors import UserError
from dppmask.figures.series import series_names
from dppmask.figures.style import DPP, INK, QUIET, SERIES, WIDE, new_figure, styled

MARKS = ("|", "x", "+", "1", "2", "3")  # of baselines
_ROW = 0.26  # inches


@dataclass(frozen=True)
class Scores:
    """One evaluation.

    Attributes:
        name: What was evaluated.
        values: Metric → value and standard error; None where that is not known.
    """

    name: str
    values: dict[str, tuple[float, float | None]]


def scores_of(records: Sequence[Mapping[str, Any]]) -> list[Scores]:
    """The metrics of records of one protocol.

    Raises:
        UserError: If there are more records than can be told apart, or they have no metrics.
    """
    if len(records) > len(SERIES):
        raise UserError(
            f"results hold {len(records)} evaluations, and at most {len(SERIES)} can be told apart"
        )
    if not any(record["metrics"] for record in records):
        raise UserError("results hold no metrics to draw")
    return [
        Scores(
            name,
            {key: (value, record["standard_errors"].get(key)) for key, value in record["metrics"].items()},
        )
        for name, record in zip(series_names(records), records, strict=True)
    ]


def draw(records: Sequence[Mapping[str, Any]], *, figure: Figure | None = None) -> Figure:
    """The figure of any records of one protocol, for ``dppmask plot``."""
    return draw_scores(scores_of(records), _baselines(records), figure=figure)


@styled()
def draw_scores(
    scores: Sequence[Scores], baselines: Mapping[str, Mapping[str, float]], *, figure: Figure | None = None
) -> Figure:
    """A row per metric: points with ± one standard error, and a mark per baseline."""
    metrics = list(dict.fromkeys(metric for one in scores for metric in one.values))
    lines = len(metrics) * max(1.0, 0.55 * len(scores))
    if figure is None:
        figure = new_figure(WIDE, 0.9 + _ROW * lines + 0.19 * ((len(scores) + len(baselines) + 1) // 2))
    axes = figure.subplots()
    for number, (one, colour) in enumerate(zip(scores, [DPP] if len(scores) == 1 else SERIES, strict=False)):
        _draw_points(axes, one, metrics, colour, shift=(number + 0.5) / len(scores) - 0.5)
    for (name, values), mark in zip(baselines.items(), MARKS, strict=False):
        known = [metric for metric in metrics if metric in values]
        places = [metrics.index(metric) for metric in known]
        heights = [values[metric] for metric in known]
        axes.plot(heights, places, mark, color=INK, markersize=9, label=name.replace("_", " "))
    axes.set_yticks(range(len(metrics)), metrics)
    axes.set_ylim(len(metrics) - 0.4, -0.6)  # the first metric on top
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8)
    return figure


def _draw_points(axes: Axes, one: Scores, metrics: Sequence[str], colour: str, *, shift: float) -> None:
    known = [metric for metric in metrics if metric in one.values]
    places = [metrics.index(metric) + 0.7 * shift for metric in known]
    values = [one.values[metric][0] for metric in known]
    errors = [one.values[metric][1] or 0.0 for metric in known]
    axes.errorbar(
        values,
        places,
        xerr=errors,
        fmt="o",
        color=colour,
        ecolor=QUIET,
        capsize=2,
        markersize=5,
        label=one.name,
    )


def _baselines(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of all records; where several know one, the first counts."""
    found: dict[str, dict[str, float]] = {}
    for record in records:
        for name, values in record["baselines"].items():
            found[name] = dict(values) | found.get(name, {})
    return found
