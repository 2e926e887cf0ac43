"""What comes out of all experiments together: the clear differences, among all that were looked at."""

from collections.abc import Mapping, Sequence

from dppmask.figures.report import Section, Text
from dppmask.figures.table import Cell, Column, Table
from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import Column as Quantity
from dppmask.reproduce.experiments import Row
from dppmask.reproduce.summary import CONFIDENCE, ENOUGH, Difference, beside_baseline
from dppmask.reproduce.tables import CLEAR, difference_text, title_of
from dppmask.reproduce.units import Job

HEADING = "What is clear"
COLUMNS = (
    Column("place", "where"),
    Column("rows", "difference"),
    Column("quantity", "of"),
    Column("found", "mean and interval"),
    Column("verdict", "which is"),
)


def findings(jobs: Sequence[Job], cells: Cells) -> Section | None:
    """Every clear difference between a row and its baseline, and how many were not; None if none is measured.

    Quantities without a better direction are left out. What stands in several experiments counts once.
    """
    seen: set[tuple[object, ...]] = set()
    compared = 0
    rows: list[Mapping[str, Cell]] = []
    for job in jobs:
        for row in job.experiment.rows.values():
            for column in job.experiment.columns.values():
                found = _difference(job, row, column, cells, seen)
                if found is not None and found.seeds >= ENOUGH:
                    compared += 1
                    if found.clear:
                        rows.append(_line(job, row, column, found))
    if not compared:
        return None
    interval, chance = f"{100 * CONFIDENCE:.0f} %", f"{(1 - CONFIDENCE) * compared:.0f}"
    text = (
        f"{len(rows)} of {compared} differences from a baseline row are clear: {ENOUGH} seeds or more, and "
        f"the {interval} interval of the mean, paired by seed, leaves out 0. About {chance} would be so by "
        "chance if no mask made a difference. What is not in the table is not shown to differ."
    )
    return Section(HEADING, [Text(text), *([Table(COLUMNS, rows)] if rows else [])])


def _difference(
    job: Job, row: Row, column: Quantity, cells: Cells, seen: set[tuple[object, ...]]
) -> Difference | None:
    """What was not looked at before; None if there is nothing to compare."""
    if row.baseline is None or column.better is None:
        return None
    baseline = job.experiment.rows[row.baseline]
    seeds = sorted({seed for _, seed in job.units})
    place = tuple(job.address(one, column, seed) for one in (row, baseline) for seed in seeds)
    if place in seen:
        return None
    seen.add(place)
    return beside_baseline(job, row, column, cells)


def _line(job: Job, row: Row, column: Quantity, found: Difference) -> Mapping[str, Cell]:
    baseline = job.experiment.rows[row.baseline or ""]
    return {
        "place": job.experiment.name,
        "rows": f"{title_of(row)} − {title_of(baseline)}",
        "quantity": column.title,
        "found": difference_text(found, column.digits).removesuffix(CLEAR),
        "verdict": "better" if (found.mean > 0) == (column.better == "higher") else "worse",
    }
