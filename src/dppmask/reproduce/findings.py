"""What comes out of all experiments together: the clear differences, among all that were looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dppmask.figures.report import Block, Section, Text
from dppmask.figures.table import Cell, Column, Table
from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import Column as Quantity
from dppmask.reproduce.experiments import Row
from dppmask.reproduce.summary import CONFIDENCE, ENOUGH, Difference, beside_baseline
from dppmask.reproduce.tables import CLEAR, difference_text, difference_title
from dppmask.reproduce.units import Job

HEADING = "What is clear"
CLEAR_IS = (
    f"Clear is a difference from the baseline row with {ENOUGH} seeds or more whose {100 * CONFIDENCE:.0f} % "
    "interval, paired by seed, leaves out 0. What is in no table here is not shown to differ."
)
COLUMNS = (
    Column("place", "where"),
    Column("rows", "difference"),
    Column("quantity", "of"),
    Column("found", "mean and interval"),
    Column("verdict", "which is"),
)


def findings(jobs: Sequence[Job], cells: Cells) -> Section | None:
    """Every clear difference between a row and its baseline, and how many were not; None if none is measured.

    What was learned stands apart from what masks do: that masks differ is no news. Quantities without a
    better direction are left out. What stands in several experiments counts once.
    """
    seen: set[tuple[object, ...]] = set()
    learned, other = _Kind(), _Kind()
    for job in jobs:
        for row in job.experiment.rows.values():
            for column in job.experiment.columns.values():
                found = _difference(job, row, column, cells, seen)
                if found is not None and found.seeds >= ENOUGH:
                    kind = learned if column.learned else other
                    kind.compared += 1
                    if found.clear:
                        kind.rows.append(_line(job, row, column, found))
    if not learned.compared + other.compared:
        return None
    blocks: list[Block] = [Text(CLEAR_IS)]
    if learned.compared:
        chance = (1 - CONFIDENCE) * learned.compared
        blocks += learned.told("what was learned", f"; about {chance:.0f} would be by chance alone")
    if other.compared:
        blocks += other.told("what masks show, how hard they are to fill in, and what they take")
    return Section(HEADING, blocks)


@dataclass
class _Kind:
    """Differences of one kind.

    Attributes:
        compared: How many were looked at.
        rows: Those that are clear.
    """

    compared: int = 0
    rows: list[Mapping[str, Cell]] = field(default_factory=list)

    def told(self, about: str, more: str = "") -> list[Block]:
        """How many, and the table."""
        text = f"{len(self.rows)} of {self.compared} differences in {about} are clear{more}."
        return [Text(text), *([Table(COLUMNS, self.rows)] if self.rows else [])]


def _difference(
    job: Job, row: Row, column: Quantity, cells: Cells, seen: set[tuple[object, ...]]
) -> Difference | None:
    """What was not looked at before; None if there is nothing to compare."""
    if row.baseline is None or column.better is None:
        return None
    baseline = job.experiment.rows[row.baseline]
    first = min((seed for _, seed in job.units), default=0)  # experiments may have more seeds than others
    place = tuple(job.address(one, column, first) for one in (row, baseline))
    if place in seen:
        return None
    seen.add(place)
    return beside_baseline(job, row, column, cells)


def _line(job: Job, row: Row, column: Quantity, found: Difference) -> Mapping[str, Cell]:
    return {
        "place": job.experiment.name,
        "rows": difference_title(row, job.experiment.rows[row.baseline or ""]),
        "quantity": column.title,
        "found": difference_text(found, column.digits).removesuffix(CLEAR),
        "verdict": "better" if (found.mean > 0) == (column.better == "higher") else "worse",
    }
