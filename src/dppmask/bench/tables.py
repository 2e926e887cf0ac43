"""The rows of a run as tables: for the terminal, and as Markdown beside the CSV."""

from collections.abc import Mapping, Sequence
from typing import Any

from dppmask.bench.cases import EXACT, GREEDY
from dppmask.bench.inputs import OURS
from dppmask.bench.step import RIVAL
from dppmask.figures.table import Cell, Column, Table

AnyRow = Mapping[str, Any]

# Shares of the step, and ratios to rivals, that we hold ourselves to.
SHARE_BUDGETS = {"greedy": 0.01, "exact": 0.10}  # of a step on a GPU
IBOT_SHARE_BUDGETS = {"purged": 0.02, "greedy": 0.02}  # of a step of iBOT on a CPU
RATIO_BUDGETS = {(GREEDY, "NumPy loop"): 1 / 3, (EXACT, "DPPy"): 1 / 4}  # on a CPU

MIB = 2**20
GREEDIEST = "Greedy masks purge nothing: every visible patch is picked, which is the dearest case."

STEP_COLUMNS = (
    Column("backbone", "training step"),
    Column("batch", "batch", digits=0),
    Column("by", "by"),
    Column("mask", "mask"),
    Column("median_ms", "ms", digits=1),
    Column("spread", "20 % to 80 %"),
    Column("mask_ms", "mask, ms", digits=2),
    Column("share", "share, %", scale=100, digits=2),
    Column("cpu_share", "share of CPU, %", scale=100, digits=2),
    Column("budget", "budget"),
    Column("over_random", "over random, %", scale=100, digits=1),
    Column("ratio", f"over {RIVAL}", digits=3),
    Column("matmul_share", "of matmul, %", scale=100, digits=1),
)


def masks_table(rows: Sequence[AnyRow]) -> Table:
    """What masks cost alone, ours and rivals."""
    columns = (
        Column("task", "task"),
        Column("implementation", "by"),
        Column("batch", "batch", digits=0),
        Column("threads", "threads", digits=0),
        Column("median_ms", "ms", digits=2),
        Column("spread", "20 % to 80 %"),
        Column("ratio", "ours / theirs", digits=3),
        Column("budget", "budget"),
        *([Column("host", "host waits, captured")] if any("host_syncs" in row for row in rows) else []),
    )
    return Table(
        columns,
        [_mask_cells(row) for row in rows],
        title=f"A batch of masks on {hardware(rows[0])}",
        note=_shape_note(rows),
    )


def _mask_cells(row: AnyRow) -> dict[str, Cell]:
    budget = RATIO_BUDGETS.get((row["task"], row["implementation"]))
    return {
        "task": row["task"],
        "implementation": row["implementation"],
        "batch": row["batch"],
        "threads": row["threads"],
        "median_ms": row["median_ms"],
        "spread": _spread(row),
        "ratio": None if row["implementation"] == OURS else row["ratio"],
        "budget": f"≤ {budget:.3f}" if budget and row["device"] == "cpu" else None,
        "host": _host_cell(row),
    }


def hardware(row: AnyRow) -> str:
    """The GPU or the processor of a row."""
    return row["gpu"] if row["device"] == "cuda" else row["cpu"]


def _spread(row: AnyRow) -> str:
    return f"{row['low_ms']:.4g} to {row['high_ms']:.4g}"


def _host_cell(row: AnyRow) -> Cell:
    if "host_syncs" not in row:
        return None
    return f"{row['host_syncs']}, " + (f"{row['graph_ms']:.4g} ms" if row["capturable"] else "no")


def step_table(rows: Sequence[AnyRow]) -> Table:
    """The training step with each mask, and the share of the mask."""
    note = (
        "Share: the mask alone over the step with it. Over random: how much longer the step takes than with "
        f"random masks. Over {RIVAL}: its time over theirs. Of matmul: matrix products of the step a second, "
        f"over what large ones reach. {GREEDIEST} {_modes(rows)}"
    )
    return Table(
        STEP_COLUMNS,
        [_step_cells(row) for row in rows],
        title=f"MAE training step on {hardware(rows[0])}",
        note=note,
    )


def _step_cells(row: AnyRow) -> dict[str, Cell]:
    budget = SHARE_BUDGETS.get(row["mask"]) if row["implementation"] == OURS else None
    names = [
        "backbone",
        "batch",
        "mask",
        "median_ms",
        "mask_ms",
        "share",
        "cpu_share",
        "over_random",
        "ratio",
        "matmul_share",
    ]
    return {name: row.get(name) for name in names} | {
        "by": row["implementation"],
        "spread": _spread(row),
        "budget": _budget(budget if row["device"] == "cuda" else None),
    }


def ibot_table(rows: Sequence[AnyRow]) -> Table:
    """The training step of iBOT with each mask, and the share of the mask."""
    keys = ("backbone", "batch", "mask", "median_ms", "spread", "mask_ms", "share", "cpu_share", "budget")
    cells = [{**row, "spread": _spread(row), "budget": _budget(_ibot_budget(row))} for row in rows]
    note = (
        "Masks of global crops, of which half stay whole and the others hide 10 to 50 %. Purged masks are "
        "DPP masks as users get them, greedy ones purge nothing and are the dearest; they and exact ones "
        f"compare the teacher's tokens. Shares: the mask alone over the step with it. {_modes(rows)}"
    )
    return Table(
        [column for column in STEP_COLUMNS if column.key in keys],
        cells,
        title=f"iBOT training step on {hardware(rows[0])}",
        note=note,
    )


def _ibot_budget(row: AnyRow) -> float | None:
    return IBOT_SHARE_BUDGETS.get(row["mask"]) if row["device"] == "cpu" else None


def _budget(share: float | None) -> str | None:
    return None if share is None else f"≤ {share:.0%}"


def _modes(rows: Sequence[AnyRow]) -> str:
    """In which precision each implementation ran, and whether it was compiled."""
    modes = {
        row["implementation"]: row["dtype"] + (", compiled" if row["compiled"] else ", eager") for row in rows
    }
    return "; ".join(f"{name}: {mode}" for name, mode in modes.items()) + "."


def features_table(rows: Sequence[AnyRow]) -> Table:
    """Feature extraction, ours and a plain loop."""
    columns = (
        Column("backbone", "features"),
        Column("batch", "batch", digits=0),
        Column("implementation", "by"),
        Column("images_per_second", "images/s"),
        Column("median_ms", "ms", digits=1),
        Column("spread", "20 % to 80 %"),
        Column("ratio", "ours / theirs", digits=3),
        Column("cpu_ratio", "of processor time", digits=3),
    )
    cells = [{**row, "spread": _spread(row)} for row in rows]
    note = "Decoded images, the same transform, loader and weights; float32, no workers."
    return Table(columns, cells, title=f"Class tokens on {hardware(rows[0])}", note=note)


def memory_table(rows: Sequence[AnyRow]) -> Table:
    """The most memory of a mask."""
    columns = (
        Column("mask", "mask"),
        Column("batch", "batch", digits=0),
        Column("num_patches", "N", digits=0),
        Column("num_keep", "K", digits=0),
        Column("peak_bytes", "peak, MiB", scale=1 / MIB),
        Column("budget_bytes", "budget, MiB", scale=1 / MIB),
        Column("share_of_budget", "peak / budget", digits=2),
    )
    note = "Beside the input. Budget: 3 B N² floats, or B N (K + D) where N > 1024."
    return Table(columns, rows, title="Memory of a batch of masks", note=note)


def _shape_note(rows: Sequence[AnyRow]) -> str:
    row, backend = rows[0], next(row["backend"] for row in rows if row["backend"])
    return (
        f"{row['num_patches']} patches, {row['num_keep']} visible, {row['feature_dim']} features; loops of "
        f"{OURS} run in {backend}. NumPy and DPPy loop over images on the CPU, in float64. All of a task are "
        f"timed in turns in one run. {GREEDIEST}"
    )
