"""Table 9 of the paper: seconds per iteration with each mask, and ours beside it."""

from collections.abc import Sequence

from dppmask.bench.harness import Row
from dppmask.bench.inputs import OURS
from dppmask.figures.table import Cell, Column, Table

# Averaged over one epoch; the paper states neither hardware, batch size nor method.
PAPER = {"exact": 2.7442, "greedy": 0.2609, "random": 0.2129}

COLUMNS = (
    Column("what", "seconds per iteration"),
    Column("exact", "exact", digits=4),
    Column("greedy", "greedy", digits=4),
    Column("random", "random", digits=4),
    Column("greedy_ratio", "greedy / random", digits=3),
    Column("exact_ratio", "exact / random", digits=3),
    Column("exact_greedy", "exact / greedy", digits=3),
)


def table9(rows: Sequence[Row]) -> Table:
    """The paper's numbers, and a row for every backbone and batch among the rows of steps."""
    ours: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["implementation"] == OURS:
            name = f"here: {row['backbone']}, batch {row['batch']}"
            ours.setdefault(name, {})[str(row["mask"])] = float(str(row["median_ms"])) / 1e3
    return Table(
        COLUMNS,
        [with_ratios(name, seconds) for name, seconds in ours.items()],
        [with_ratios("the paper", PAPER)],
        title="Table 9",
        note="The paper's hardware, batch size and method are not stated: compare ratios.",
    )


def with_ratios(what: str, seconds: dict[str, float]) -> dict[str, Cell]:
    """A row of the table."""
    exact, greedy, random = (seconds[name] for name in ("exact", "greedy", "random"))
    return {
        "what": what,
        **seconds,
        "greedy_ratio": greedy / random,
        "exact_ratio": exact / random,
        "exact_greedy": exact / greedy,
    }
