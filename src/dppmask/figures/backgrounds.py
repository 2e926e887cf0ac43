"""Accuracy under other backgrounds, of one or several evaluations, and what is taken for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from dppmask.data.variants import VARIANTS
from dppmask.errors import UserError
from dppmask.figures.style import DPP, INK, QUIET, SERIES, WIDE, new_figure, styled

MATRICES = ("original", "mixed_same", "mixed_rand")  # whose confusion is drawn
_GAP = "bg_gap"
_LINES: dict[
    str, tuple[str, dict[str, Any]]
] = {  # baselines drawn as a tick across the bars of a variant, and how
    "chance": ("chance", {"color": INK, "linestyle": (0, (1, 1))}),
    "background_only": ("background alone", {"color": INK}),
    "ceiling": ("most that the outputs allow", {"color": INK, "linestyle": (0, (4, 2))}),
}


@dataclass(frozen=True)
class Bars:
    """One evaluation.

    Attributes:
        name: What was evaluated.
        values: Variant → accuracy and standard error.
        gap: mixed_same minus mixed_rand, and its standard error; None where one is missing.
        lines: Baseline → variant → value.
    """

    name: str
    values: dict[str, tuple[float, float]]
    gap: tuple[float, float] | None
    lines: dict[str, dict[str, float]]

    @property
    def caption(self) -> str:
        """Name and gap."""
        if self.gap is None:
            return self.name
        value, error = self.gap
        return f"{self.name}: gap {100 * value:.1f} ± {100 * error:.1f} points"


def background_bars(records: Sequence[Mapping[str, Any]]) -> list[Bars]:
    """The numbers of ``Backgrounds`` records, by the official rule.

    Raises:
        UserError: If there are more than can be told apart.
    """
    if len(records) > len(SERIES):
        raise UserError(
            f"results hold {len(records)} evaluations, and at most {len(SERIES)} can be told apart"
        )
    found = []
    for name, record in zip(_names(records), records, strict=True):
        metrics, errors = record["metrics"], record["standard_errors"]
        scored = {key: (value, errors[key]) for key, value in metrics.items()}
        values = {variant: scored[variant] for variant in VARIANTS if variant in scored}
        found.append(Bars(name, values, scored.get(_GAP), record["baselines"]))
    return found


def draw(records: Sequence[Mapping[str, Any]], *, figure: Figure | None = None) -> Figure:
    """The figure of ``Backgrounds`` records, for ``dppmask plot``: bars, and below those of one, matrices."""
    bars = background_bars(records)
    matrices = _matrices(records[0]) if len(records) == 1 else {}
    return draw_backgrounds(bars, matrices, figure=figure)


@dataclass(frozen=True, eq=False)
class Confusion:
    """What images are taken for.

    Attributes:
        counts: int64 ``[K, columns]``.
        classes: Of the rows.
        predicted: Of the columns: the classes, and what stands for none.
    """

    counts: Tensor
    classes: list[str]
    predicted: list[str]


@styled()
def draw_backgrounds(
    bars: Sequence[Bars], matrices: Mapping[str, Confusion], *, figure: Figure | None = None
) -> Figure:
    """Bars of all variants, and a row of confusion matrices where there are any."""
    above, below = 2.6 + 0.17 * len(bars), 2.9 if matrices else 0.0
    figure = new_figure(WIDE, above + below) if figure is None else figure
    if not matrices:
        draw_bars(figure.subplots(), bars)
    else:
        rows = figure.subfigures(2, 1, squeeze=False, height_ratios=[above, below])[:, 0]
        draw_bars(rows[0].subplots(), bars)
        axes = rows[1].subplots(1, len(matrices), squeeze=False)[0]
        for place, (variant, matrix) in zip(axes, matrices.items(), strict=True):
            draw_confusion(place, matrix, show_classes=place is axes[0])
            place.set_title(variant)
        axes[0].set_ylabel("class of the foreground")
    return figure


@styled()
def draw_bars(axes: Axes, bars: Sequence[Bars]) -> None:
    """A group of bars per variant, a bar per evaluation; errors are ± one standard error."""
    variants = [name for name in VARIANTS if any(name in one.values for one in bars)]
    width = 0.8 / len(bars)
    colours = [DPP] if len(bars) == 1 else SERIES
    for number, (one, colour) in enumerate(zip(bars, colours, strict=False)):
        places = [
            variants.index(name) + (number + 0.5) * width - 0.4 for name in variants if name in one.values
        ]
        values, errors = zip(*(one.values[name] for name in variants if name in one.values), strict=True)
        axes.bar(
            places,
            values,
            width=0.92 * width,
            yerr=errors,
            color=colour,
            ecolor=QUIET,
            capsize=2,
            label=one.caption,
        )
    for baseline, (label, line) in _LINES.items():
        known = bars[0].lines.get(baseline, {})
        shown = [name for name in variants if name in known]
        if shown:
            centres = [variants.index(name) for name in shown]
            heights = [known[name] for name in shown]
            left, right = [x - 0.46 for x in centres], [x + 0.46 for x in centres]
            axes.hlines(heights, left, right, linewidth=1.2, label=label, **line)
    axes.set_xticks(range(len(variants)), [name.replace("_", "\n", 1) for name in variants])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("accuracy")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8)


@styled()
def draw_confusion(axes: Axes, matrix: Confusion, *, show_classes: bool = True) -> None:
    """Shares of each row, darker where larger; shares of 5 % and more are written in percent."""
    shares = matrix.counts / matrix.counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in (shares >= 0.05).nonzero().tolist():
        share = shares[row, column].item()
        colour = "white" if share > 0.5 else INK
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=5.5)
    axes.set_xticks(range(len(matrix.predicted)), matrix.predicted, rotation=90, fontsize=6)
    axes.set_yticks(range(len(matrix.classes)), matrix.classes if show_classes else [], fontsize=6)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_xlabel("taken for", fontsize=8)


def _matrices(record: Mapping[str, Any]) -> dict[str, Confusion]:
    rows = record["tables"]["confusion"]
    classes = list(dict.fromkeys(row["class"] for row in rows))
    others = list(dict.fromkeys(name for row in rows for name in row["predicted"] if name not in classes))
    predicted = classes + others
    found = {}
    for variant in MATRICES:
        counts = [
            [row["predicted"].get(name, 0) for name in predicted] for row in rows if row["variant"] == variant
        ]
        if counts:
            found[variant] = Confusion(torch.tensor(counts), classes, predicted)
    return found


def _names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each evaluation is called: its classifier or source, and the seed where several have the same."""
    sources = [
        str(record["settings"]["init_args"]["classifier"] or record["subject"]["source"] or "encoder")
        for record in records
    ]
    return [
        source if sources.count(source) == 1 else f"{source}, seed {record['seed']}"
        for source, record in zip(sources, records, strict=True)
    ]
