"""Measure cells once more, and say whether the committed numbers come out again."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from dppmask.errors import UserError, nearest
from dppmask.figures.table import Column, Table
from dppmask.reproduce.cells import CELLS, Cell, Cells, hardware_of
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.runner import Show, run_units
from dppmask.reproduce.units import Job, Unit, merged

FOLDER = "recheck"
TOLERANCE = 1e-6  # relative; equal software on equal hardware repeats every digit


@dataclass(frozen=True)
class Comparison:
    """One cell as it was written down, and as it came out now.

    Attributes:
        before: The line of ``cells.jsonl``.
        now: The new one.
    """

    before: Cell
    now: Cell

    @property
    def worst(self) -> tuple[str, float]:
        """The metric that moved most, and how far relative to the larger value; inf where one is missing."""
        old, new = self.before["metrics"], self.now["metrics"]
        names = sorted(old.keys() | new.keys())
        moved = {name: relative(old.get(name), new.get(name)) for name in names}
        return max(moved.items(), key=lambda item: item[1], default=("", 0.0))

    @property
    def agrees(self) -> bool:
        """Whether every metric is the same to rounding."""
        return self.worst[1] <= TOLERANCE


def recheck(
    names: Sequence[str],
    jobs: Sequence[Job],
    cells: Cells,
    machine: Machine,
    show: Show = lambda progress: None,
) -> list[Comparison]:
    """Train and evaluate anew what gives these cells; nothing that is written down is touched.

    Args:
        names: Of cells that are measured: "table2/random/0/knn" is experiment, row, seed, evaluation.
        jobs: The experiments.
        cells: What is written down.
        machine: Where the work is done, in a folder of its own that is emptied first.
        show: As for :func:`~dppmask.reproduce.runner.run_units`.

    Raises:
        UserError: If there is no such cell, it is not measured, or it failed now.
    """
    known = cells_by_name(jobs)
    keys = [_measured_key(name, known, cells) for name in dict.fromkeys(names)]
    apart = replace(machine, work=machine.work / FOLDER)
    if apart.work.exists():
        shutil.rmtree(apart.work)  # all of it, or an error: an old cell would agree with itself
    fresh = Cells(apart.work / CELLS)
    units = only(merged(jobs), keys)
    failures = run_units(units, fresh, apart, show=show).failures
    for unit in units:
        for key, evaluation in unit.evaluations.items():
            if key in failures:
                raise UserError(f"{unit.title}, {evaluation.name}, failed: {failures[key]}")
    return [Comparison(cells[key], fresh[key]) for key in keys]


def cells_by_name(jobs: Sequence[Job]) -> dict[str, str]:
    """Name of a cell, as one types it → its key."""
    return {
        f"{job.experiment.name}/{row}/{seed}/{evaluation.name}": key
        for job in jobs
        for (row, seed), unit in job.units.items()
        for key, evaluation in unit.evaluations.items()
    }


def only(units: Sequence[Unit], keys: Sequence[str]) -> list[Unit]:
    """The units that give these cells, with no evaluation that they do not need."""
    found = []
    for unit in units:
        wanted = [evaluation for key, evaluation in unit.evaluations.items() if key in keys]
        if wanted:
            needed = {evaluation.key: evaluation for evaluation in unit.with_what_they_need(wanted)}
            found.append(replace(unit, evaluations=needed))
    return found


def _measured_key(name: str, known: Mapping[str, str], cells: Cells) -> str:
    if name not in known:
        raise UserError(
            f"check must name cells as EXPERIMENT/ROW/SEED/EVALUATION, got {name}; {nearest(name, known)}"
        )
    if known[name] not in cells:
        raise UserError(f"check compares with what is written down, but {cells.path} does not have {name}")
    if not cells[known[name]]["metrics"]:
        raise UserError(f"check compares metrics, but {name} has only timings, which differ each time")
    return known[name]


def relative(old: float | None, new: float | None) -> float:
    """The distance of two numbers over the larger of them."""
    if old is None or new is None:
        return inf
    return 0.0 if old == new else abs(old - new) / max(abs(old), abs(new))


def as_text(found: Sequence[Comparison]) -> str:
    """What one reads in the terminal.

    Raises:
        UserError: If a cell does not agree; the table is part of the message.
    """
    rows = [_row(comparison) for comparison in found]
    columns = [
        Column(name, name) for name in ("cell", "evaluation", "metric moved most", "before", "now", "")
    ]
    text = Table(columns, rows, title="Measured once more").to_text()
    differing = [comparison for comparison in found if not comparison.agrees]
    if not differing:
        return f"{text}All {len(found)} agree in every metric."
    before, now = differing[0].before, differing[0].now
    raise UserError(
        f"{len(differing)} of {len(found)} cells do not agree; other hardware or versions of libraries round "
        f"differently, and training magnifies it.\n{text}before: {_made_by(before)}\nnow:    {_made_by(now)}"
    )


def _row(comparison: Comparison) -> Mapping[str, str]:
    name, moved = comparison.worst
    old, new = (cell["metrics"].get(name) for cell in (comparison.before, comparison.now))
    return {
        "cell": comparison.before["title"],
        "evaluation": comparison.before["evaluation"],
        "metric moved most": name,
        "before": "–" if old is None else f"{old:.6g}",
        "now": "–" if new is None else f"{new:.6g}",
        "": "equal" if comparison.agrees else f"{moved:.1e} off",
    }


def _made_by(cell: Cell) -> str:
    return f"commit {cell['commit']}, {hardware_of(cell)}, torch {cell['versions']['torch']}"
