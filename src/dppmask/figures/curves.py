"""Training curves from the ``metrics.jsonl`` of one or several runs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dppmask.errors import UserError
from dppmask.figures.style import QUIET, SERIES, WIDE, new_figure, styled
from dppmask.training.callbacks import read_metrics

SMOOTHING = 0.01  # of the training: how far the mean reaches to either side

Lines = Sequence[Mapping[str, Any]]


def load_curves(runs: Mapping[str, str | Path]) -> dict[str, Lines]:
    """The lines of ``metrics.jsonl`` by name of the run.

    Raises:
        UserError: If a run has none yet.
    """
    curves: dict[str, Lines] = {}
    for name, run in runs.items():
        path = Path(run) / "metrics.jsonl"
        if not path.is_file():
            raise UserError(f"{run} has no {path.name}: it is no run, or has not begun to train")
        curves[name] = read_metrics(path)
        if not curves[name]:
            raise UserError(f"{path} has no finished line yet; wait until the run has logged one")
    return curves


@styled()
def draw_curves(
    curves: Mapping[str, Lines], *, loss: str = "training loss", figure: Figure | None = None
) -> Figure:
    """Loss and learning rate of runs over optimiser steps; the first run is the baseline.

    Args:
        curves: Name of the run → lines with "step", "loss" and "lr".
        loss: What the loss is, with its unit.
        figure: Where to draw; a new one by default.
    """
    figure = new_figure(WIDE, 3.8) if figure is None else figure
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    draw_loss(above, curves)
    above.set_ylabel(loss)
    for index, (lines, colour) in enumerate(zip(curves.values(), _colours(curves), strict=True)):
        width = 1.4 + 1.8 * (len(curves) - 1 - index)  # equal schedules stay visible under each other
        below.plot(_column(lines, "step"), _column(lines, "lr"), color=colour, linewidth=width)
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    below.set_xlabel("optimiser step")
    figure.align_ylabels()
    return figure


@styled()
def draw_loss(axes: Axes, curves: Mapping[str, Lines]) -> None:
    """The loss as logged, faint, and its mean around each step."""
    for (name, lines), colour in zip(curves.items(), _colours(curves), strict=True):
        steps, values = _column(lines, "step"), _column(lines, "loss")
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(steps, values), color=colour, label=name)
    axes.legend(loc="upper right")
    axes.set_title(
        f"faint: as logged; bold: mean around each step over about {2 * SMOOTHING:.0%} of the training",
        fontsize=8,
        fontweight="normal",
        color=QUIET,
    )


def smooth(steps: Sequence[float], values: Sequence[float], *, reach: float = SMOOTHING) -> list[float]:
    """Mean of the values around each step, without lag.

    Weights fall by e over ``reach`` of the whole range of steps, to both sides, and sum to 1 everywhere.
    """
    length = reach * (steps[-1] - steps[0])
    before = _decayed_sums(steps, values, length)
    after = _decayed_sums([-step for step in reversed(steps)], list(reversed(values)), length)[::-1]
    return [
        (past + future - value) / (past_weight + future_weight - 1.0)  # both sides hold the value itself
        for value, (past, past_weight), (future, future_weight) in zip(values, before, after, strict=True)
    ]


def _decayed_sums(
    steps: Sequence[float], values: Sequence[float], length: float
) -> list[tuple[float, float]]:
    """Sum of the values so far, and of their weights, which fall by e over ``length``."""
    sums, total, weight = [], 0.0, 0.0
    for index, value in enumerate(values):
        decay = math.exp((steps[index - 1] - steps[index]) / length) if index else 0.0
        total, weight = decay * total + value, decay * weight + 1.0
        sums.append((total, weight))
    return sums


def _column(lines: Lines, name: str) -> list[float]:
    return [float(line[name]) for line in lines]


def _colours(curves: Mapping[str, Lines]) -> list[str]:
    return [SERIES[index % len(SERIES)] for index in range(len(curves))]
