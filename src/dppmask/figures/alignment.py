"""Alignment and diversity of masks against the purge ratio, and masked images around the whole one."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from dppmask.errors import UserError
from dppmask.figures.style import INK, QUIET, SERIES, WIDE, new_figure, styled
from dppmask.figures.sweeps import Sweep, sweep_of

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]

# Statistic → title and label of its axis. Distances are in units of that between two images, so that encoders
# whose features differ in length can be compared.
PANELS = {
    "alignment_relative": ("alignment", "distance to whole image"),
    "diversity_relative": ("diversity", "distance of two masks"),
    "lost_minus_kept_relative": ("losing an object", "distance, lost minus kept"),
}
COLOURS = SERIES[2:]  # of mask ratios: the first two are random and DPP masks everywhere
UNIT = "distances over the mean distance between two different images; bars and bands: one standard error"
DASHES = (0, (5, 2))
MARKERS = "osD^"  # of families
LOST, KEPT = SERIES[4], SERIES[5]
CLOUD_PURGE_RATIO, CLOUD_MASK_RATIO = 0.3, 0.75  # of what was measured, the nearest to these is shown


def draw(records: Sequence[Mapping[str, Any]], *, figure: Figure | None = None) -> Figure:
    """One record of ``Alignment``.

    Raises:
        UserError: If there are several records, or the record has no relative distances.
    """
    if len(records) > 1:
        raise UserError(f"Alignment draws one record, got {len(records)}; give a file that holds only one")
    return draw_alignment(records[0]["tables"], figure=figure)


@styled()
def draw_alignment(tables: Tables, *, figure: Figure | None = None) -> Figure:
    """Curves in the first row; below, for each image with clouds, random beside DPP masks.

    Raises:
        UserError: If all images have the same vector, so that no distance is known in units of theirs.
    """
    panels = [name for name in PANELS if any(row["statistic"] == name for row in tables["statistics"])]
    if not panels:
        raise UserError("all images have the same vector: there is no alignment to draw; train the encoder")
    shown = cloud_panels(tables)
    columns = min(len(shown), 4)
    num_rows = -(-len(shown) // 4)
    heights = [2.9, *([num_rows * (WIDE / columns + 0.5)] if shown else [])]
    figure = new_figure(WIDE, sum(heights)) if figure is None else figure
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_curves(parts[0], tables, panels)
    if shown:
        places = parts[1].subplots(num_rows, columns, squeeze=False).flatten()
        _draw_clouds(parts[1], places, shown)
    return figure


def ratio_sweeps(tables: Tables, statistic: str) -> dict[float, Sweep]:
    """One statistic at each mask ratio, ascending."""
    rows = [row for row in tables["statistics"] if row["statistic"] == statistic]
    return {
        ratio: sweep_of([row for row in rows if row["mask_ratio"] == ratio], tables["strategies"])
        for ratio in sorted({row["mask_ratio"] for row in rows})
    }


def cloud_panels(tables: Tables) -> list[tuple[str, Row]]:
    """Title and cloud: for each image random masks, then DPP masks; ratio and τ are those nearest to ours."""
    rows, described = tables["clouds"], tables["strategies"]
    taus = {row["strategy"]: row["init_args"].get("purge_ratio") for row in described}
    dpp = [label for label, tau in taus.items() if tau is not None]
    if not rows or not dpp:
        return []
    ratio = min((row["mask_ratio"] for row in rows), key=lambda ratio: abs(ratio - CLOUD_MASK_RATIO))
    nearest = min(dpp, key=lambda label: abs(taus[label] - CLOUD_PURGE_RATIO))
    random = next(row["strategy"] for row in described if row["class_path"].endswith(".RandomMask"))
    titles = {random: "random masks", nearest: f"DPP masks, τ = {taus[nearest]:g}"}
    return [
        (title, row)
        for image in sorted({row["image"] for row in rows})
        for label, title in titles.items()
        for row in rows
        if (row["image"], row["strategy"], row["mask_ratio"]) == (image, label, ratio)
    ]


def _draw_curves(part: SubFigure, tables: Tables, panels: Sequence[str]) -> None:
    for axes, name in zip(part.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        sweeps = ratio_sweeps(tables, name)
        for (ratio, sweep), colour in zip(sweeps.items(), COLOURS, strict=False):
            draw_ratio(axes, sweep, label=f"ratio {ratio:g}", colour=colour)
        title, unit = PANELS[name]
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.set_xlabel("purge ratio τ")
        axes.set_xlim(-0.03, 1.03)
        if name.startswith("lost_minus"):
            axes.axhline(0.0, color=INK, linewidth=0.8)
        else:
            axes.set_ylim(bottom=0.0)
    handles, labels = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color=QUIET, linestyle=DASHES, label="random masks"))
    part.legend(handles, [*labels, "random masks"], loc="outside lower center", ncols=len(handles))
    part.suptitle(UNIT, x=0.01, ha="left", fontsize=8, color=QUIET)


def draw_ratio(axes: Axes, sweep: Sweep, *, label: str, colour: str) -> None:
    """One statistic at one mask ratio against τ; a marker for each family, a dashed line for random masks."""
    if sweep.random is not None:
        value, error = sweep.random
        axes.axhline(value, color=colour, linewidth=1.2, linestyle=DASHES)
        axes.axhspan(value - error, value + error, color=colour, alpha=0.12, linewidth=0)
    for (family, curve), marker in zip(sweep.curves.items(), MARKERS, strict=False):
        axes.errorbar(
            curve.purge_ratios,
            curve.values,
            yerr=curve.standard_errors,
            color=colour,
            marker=marker,
            markersize=3.5,
            capsize=2,
            elinewidth=1,
            label=f"{label}, {family}" if family else label,
        )


def _draw_clouds(part: SubFigure, places: Sequence[Axes], shown: Sequence[tuple[str, Row]]) -> None:
    """Random and DPP masks of each image, on equal axes."""
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    for axes, (title, row) in zip(places, shown, strict=False):
        draw_cloud(axes, row, title=title)
        xlim, ylim = square_limits([other for _, other in shown if other["image"] == row["image"]])
        axes.set(xlim=xlim, ylim=ylim)
    handles, labels = places[0].get_legend_handles_labels()
    part.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def square_limits(rows: Sequence[Row]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Equally long intervals of x and y that hold all points of some clouds, and the origin."""
    spans = [[0.0, *(value for row in rows for value in row[name])] for name in ("x", "y")]
    half = 0.54 * max(max(values) - min(values) for values in spans) or 1.0
    (x, y) = ((max(values) + min(values)) / 2 for values in spans)
    return (x - half, x + half), (y - half, y + half)


def draw_cloud(axes: Axes, row: Row, *, title: str) -> None:
    """Masked versions of an image around the whole one; those that lost an object in another colour."""
    lost = row["lost"] or [False] * len(row["x"])
    for flag, colour, name in ((False, KEPT, "masked"), (True, LOST, "masked, an object lost")):
        x, y = ([v for v, is_lost in zip(row[k], lost, strict=True) if is_lost == flag] for k in ("x", "y"))
        axes.scatter(x, y, s=9, color=colour, alpha=0.75, linewidths=0, label=name)
    axes.scatter([0], [0], s=80, marker="*", color=INK, zorder=3, label="whole image")
    axes.set_box_aspect(1.0)
    found = f"\n{sum(lost)} of {len(lost)} lost an object" if row["lost"] else ""
    axes.set_title(f"{title}{found}", fontsize=8)
    where = f"image {row['image']}, ratio {row['mask_ratio']:g}"
    axes.set_xlabel(f"{where}, {row['explained']:.0%} of spread", color=QUIET, fontsize=7)
    axes.tick_params(labelbottom=False, labelleft=False, length=0)
