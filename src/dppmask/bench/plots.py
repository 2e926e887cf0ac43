"""The rows of a run as pictures: cost of masks, of steps, growth, memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, PercentFormatter

from dppmask.bench.inputs import OURS, STRATEGIES, is_ours
from dppmask.bench.step import RIVAL
from dppmask.bench.tables import SHARE_BUDGETS, hardware
from dppmask.figures.style import DPP, INK, QUIET, RANDOM, SERIES, WIDE, new_figure, styled

AnyRow = Mapping[str, Any]

EXACT = SERIES[2]
COLOURS = {"random": RANDOM, "greedy": DPP, "purged": DPP, "exact": EXACT, RIVAL: QUIET}
COLOURS |= {"block": SERIES[3], "attention, high": SERIES[4], "attention, hint": SERIES[4]}
LABELS = {"random": "random", "greedy": "greedy DPP", "exact": "exact k-DPP"}
PANELS = {
    "patches": ("num_patches", "patches N"),
    "visible": ("num_keep", "visible patches K"),
    "batch": ("batch", "batch size"),
}
# The growth that is promised for greedy masks.
PROMISED: dict[str, Callable[[AnyRow], float]] = {
    "patches": lambda row: row["num_patches"] * row["num_keep"] * (row["num_keep"] + row["feature_dim"]),
    "batch": lambda row: row["batch"],
}
PROMISE = "∝ N K (K + D), ∝ batch"


@styled()
def draw_masks(rows: Sequence[AnyRow]) -> Figure:
    """Milliseconds of every task, ours and rivals; of the most threads and the first batch."""
    threads, batch = max(row["threads"] for row in rows), rows[0]["batch"]
    rows = [row for row in rows if row["threads"] == threads and row["batch"] == batch]
    figure = new_figure(WIDE, 0.26 * len(rows) + 0.9)
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        colour = DPP if is_ours(row["implementation"]) else QUIET
        axes.barh(place, row["median_ms"], color=colour, height=0.72)
        draw_spread(axes, row, place, horizontal=True)
        axes.annotate(
            f"{row['median_ms']:.3g}",
            (row["high_ms"], place),
            (4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(rows)), [f"{row['task']}: {row['implementation']}" for row in reversed(rows)])
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("milliseconds per batch")
    axes.set_title(
        f"a batch of {batch} masks on {hardware(rows[0])}, {threads} thread{'s' if threads > 1 else ''}"
    )
    return figure


@styled()
def draw_step(rows: Sequence[AnyRow]) -> Figure:
    """For each backbone and batch the step with each mask, and the share of the mask."""
    groups = list(dict.fromkeys((row["backbone"], row["batch"]) for row in rows))
    figure = new_figure(WIDE, 1.9 * len(groups) + 0.3)
    places = figure.subplots(len(groups), 2, squeeze=False)
    for (backbone, batch), (steps, shares) in zip(groups, places, strict=True):
        group = [row for row in rows if (row["backbone"], row["batch"]) == (backbone, batch)]
        _draw_times(steps, group)
        steps.set_title(f"{backbone}, batch {batch}")
        _draw_shares(shares, [row for row in group if row["implementation"] == OURS])
        shares.set_title("of which the mask")
    return figure


def _draw_times(axes: Axes, rows: Sequence[AnyRow]) -> None:
    names = [row["mask"] if row["implementation"] == OURS else row["implementation"] for row in rows]
    for place, (name, row) in enumerate(zip(reversed(names), reversed(rows), strict=True)):
        axes.barh(place, row["median_ms"], color=COLOURS[name], height=0.7)
        draw_spread(axes, row, place, horizontal=True)
    axes.set_yticks(range(len(rows)), list(reversed(names)))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("milliseconds per training step")


def _draw_shares(axes: Axes, rows: Sequence[AnyRow]) -> None:
    for place, row in enumerate(reversed(rows)):
        axes.barh(place, row["share"], color=COLOURS[row["mask"]], height=0.7)
        axes.annotate(
            f"{row['share']:.2%}", (row["share"], place), (4, 0), textcoords="offset points", va="center"
        )
        if row["device"] == "cuda" and (budget := SHARE_BUDGETS.get(row["mask"])):
            axes.plot([budget, budget], [place - 0.42, place + 0.42], color=INK, linewidth=1.5)
    axes.set_yticks(range(len(rows)), [row["mask"] for row in reversed(rows)])
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel("mask alone / step with it")


@styled()
def draw_features(rows: Sequence[AnyRow]) -> Figure:
    """Images per second of ours and of a plain loop, for each backbone and batch."""
    figure = new_figure(WIDE, 0.3 * len(rows) + 0.9)
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        axes.barh(place, row["images_per_second"], color=DPP if is_ours(row["implementation"]) else QUIET)
        ends = [1e3 * row["images"] / row[name] for name in ("high_ms", "low_ms")]
        axes.plot(ends, [place, place], color=INK, linewidth=1.0)
    names = [f"{row['backbone']}, batch {row['batch']}: {row['implementation']}" for row in rows]
    axes.set_yticks(range(len(rows)), list(reversed(names)))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("images per second")
    axes.set_title(f"features on {hardware(rows[0])}")
    return figure


@styled()
def draw_scaling(rows: Sequence[AnyRow]) -> Figure:
    """Cost against patches, visible patches and batch, with the growth that is promised."""
    figure = new_figure(WIDE, 2.9)
    places = figure.subplots(1, 3, sharey=True)
    for axes, (panel, (column, label)) in zip(places, PANELS.items(), strict=True):
        inside = sorted((row for row in rows if row["panel"] == panel), key=lambda row: row[column])
        lines = {name: [row for row in inside if row["mask"] == name] for name in STRATEGIES}
        for name, line in lines.items():
            _draw_line(axes, name, line, column)
        if panel in PROMISED:
            _draw_promise(axes, lines["greedy"], column, PROMISED[panel])
        _logarithmic(axes, sorted({row[column] for row in inside}))
        axes.set_xlabel(label)
        axes.set_title(_fixed_sizes(inside[-1], column))
    places[0].set_ylabel("milliseconds per batch")
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_line(axes: Axes, name: str, line: Sequence[AnyRow], column: str) -> None:
    sizes, times = [row[column] for row in line], [row["median_ms"] for row in line]
    axes.plot(sizes, times, color=COLOURS[name], marker="o", markersize=3.5, label=LABELS[name])
    for row in line:
        draw_spread(axes, row, row[column], horizontal=False)


def _draw_promise(axes: Axes, line: Sequence[AnyRow], column: str, growth: Callable[[AnyRow], float]) -> None:
    """Dashed, through the last point: constant costs weigh least there."""
    last = line[-1]
    values = [last["median_ms"] * growth(row) / growth(last) for row in line]
    sizes = [row[column] for row in line]
    axes.plot(sizes, values, color=QUIET, linestyle="--", linewidth=1, label=PROMISE)


def _fixed_sizes(row: AnyRow, column: str) -> str:
    names = {"batch": "batch", "num_patches": "N", "num_keep": "K"}
    if column == "num_patches":
        return f"batch {row['batch']}, K = {row['num_keep'] / row['num_patches']:.2g} N"
    return ", ".join(f"{name} {row[key]}" for key, name in names.items() if key != column)


def _logarithmic(axes: Axes, sizes: Sequence[float]) -> None:
    """Both axes logarithmic; the sizes that were measured are the ticks."""
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=7)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


@styled()
def draw_memory(rows: Sequence[AnyRow]) -> Figure:
    """Peak memory of every mask and shape, relative to its budget."""
    figure = new_figure(WIDE, 0.26 * len(rows) + 1.0)
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        axes.barh(place, row["share_of_budget"], color=COLOURS[row["mask"]], height=0.7)
        axes.annotate(
            f"{row['peak_bytes'] / 2**20:.1f} MiB",
            (row["share_of_budget"], place),
            (4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.axvline(1.0, color=INK, linewidth=1.5)
    names = [f"{row['mask']}: B {row['batch']}, N {row['num_patches']}, K {row['num_keep']}" for row in rows]
    axes.set_yticks(range(len(rows)), list(reversed(names)))
    axes.margins(x=0.2)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("most memory beside the input / budget")
    axes.set_title(f"memory of a batch of masks on {hardware(rows[0])}")
    return figure


def draw_spread(axes: Axes, row: AnyRow, place: float, *, horizontal: bool) -> None:
    """The 20 % and 80 % quantiles."""
    ends, both = [row["low_ms"], row["high_ms"]], [place, place]
    axes.plot(*((ends, both) if horizontal else (both, ends)), color=INK, linewidth=1.0)
