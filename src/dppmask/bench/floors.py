"""How far from what the machine could do at best: floor, measured, gap."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dppmask.bench import arithmetic
from dppmask.bench.arithmetic import Machine, Shape, Work
from dppmask.bench.cases import EXACT, FROM_FEATURES, GREEDY, KERNEL
from dppmask.bench.inputs import OURS, is_ours
from dppmask.bench.step_arithmetic import mae_size, mae_step
from dppmask.figures.table import Cell, Column, Table

AnyRow = Mapping[str, Any]

NOT_MEASURED = "not yet measured"
COLUMNS = (
    Column("name", "work"),
    Column("gflops", "Gflop", digits=2),
    Column("mbytes", "MB", digits=1),
    Column("bound", "bound by"),
    Column("floor", "floor, ms", digits=3),
    Column("measured", "measured, ms", digits=3),
    Column("gap", "gap", digits=1),
)


def run_floors(rows: Sequence[AnyRow], machine: Machine) -> Table:
    """Floor and gap of everything of ours that was measured on all threads and whose work is known."""
    threads = max(row["threads"] for row in rows)
    works: dict[str, Work] = {}
    measured: dict[str, float] = {}
    for row in rows:
        if is_ours(row["implementation"]) and row.get("flops") and row["threads"] == threads:
            name = f"{_work_name(row)}, batch {row['batch']}"
            works[name] = Work(row["flops"], row["bytes"], getattr(torch, row["dtype"]))
            measured.setdefault(name, row["median_ms"] / 1e3)
    rates = ", ".join(f"{rate / 1e9:.0f} Gflop/s {_short(dtype)}" for dtype, rate in machine.rates.items())
    note = f"Measured in this run: {rates}; {machine.bandwidth / 1e9:.1f} GB/s."
    return floors(works, machine, measured, title=f"Floor and gap on {machine.name}", note=note)


def standard_works(shape: Shape, steps: Sequence[str], *, step_batch: int) -> dict[str, Work]:
    """The works of ``docs/performance.md``: every algorithm, and the steps of backbones at 224 px.

    Args:
        shape: Of the masks.
        steps: timm names.
        step_batch: Images per step.
    """
    masks = {
        KERNEL: arithmetic.gaussian_kernel(shape),
        GREEDY: arithmetic.greedy_from_kernel(shape),
        FROM_FEATURES: arithmetic.greedy_from_features(shape),
        f"{EXACT}, spectral": arithmetic.exact_spectral(shape),
        f"{EXACT}, rejection": arithmetic.exact_rejection(shape),
    }
    sizes = {f"MAE step, {name}": mae_size(name) for name in steps}
    return {f"{name}, batch {shape.batch}": work for name, work in masks.items()} | {
        f"{name}, batch {step_batch}": mae_step(size, batch=step_batch, num_keep=shape.num_keep)
        for name, size in sizes.items()
    }


def _work_name(row: AnyRow) -> str:
    if "task" not in row:
        return f"MAE step, {row['backbone']}"
    return row["task"] if row["implementation"] == OURS else f"{row['task']}, {row['implementation']}"


def floors(
    works: Mapping[str, Work], machine: Machine, measured: Mapping[str, float], *, title: str, note: str = ""
) -> Table:
    """Operations and bytes of each piece of work, how fast the machine could do it, and how far off we are.

    Args:
        works: Name → work.
        machine: Whose rates give the floor.
        measured: Name → seconds; names that are missing are said not to be measured.
        title: Above the table.
        note: Below the table.
    """
    rows = [_floor_cells(name, work, machine, measured.get(name)) for name, work in works.items()]
    return Table(COLUMNS, rows, title=title, note=note)


def _floor_cells(name: str, work: Work, machine: Machine, seconds: float | None) -> dict[str, Cell]:
    floor = work.floor(machine)
    return {
        "name": name,
        "gflops": work.flops / 1e9,
        "mbytes": work.bytes / 1e6,
        "bound": work.bound(machine),
        "floor": 1e3 * floor,
        "measured": NOT_MEASURED if seconds is None else 1e3 * seconds,
        "gap": None if seconds is None else seconds / floor,
    }


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
