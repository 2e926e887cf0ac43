"""What the runner shows while it works: a live table on a terminal, a line a change elsewhere."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from dppmask.reproduce.cells import Cells
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.runner import Progress, Show
from dppmask.reproduce.units import Job, Unit
from dppmask.training.run import METRICS


@contextmanager
def showing(jobs: Sequence[Job], cells: Cells, machine: Machine) -> Iterator[Show]:
    """A function for the runner to call; what it shows goes to stderr."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lines()
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda progress: live.update(table(progress, jobs, cells, machine), refresh=True)


def table(progress: Progress, jobs: Sequence[Job], cells: Cells, machine: Machine) -> Table:
    """Every experiment with its cells, and what each worker does."""
    shown = Table(box=None, pad_edge=False)
    for heading in ("experiment", "cells", "done", "failed"):
        shown.add_column(heading, justify="left" if heading == "experiment" else "right")
    for job in jobs:
        wanted = job.evaluations
        done = sum(cells.has(evaluation) for evaluation in wanted.values())
        failed = len(wanted.keys() & progress.failures.keys())
        shown.add_row(job.experiment.name, str(len(wanted)), str(done), str(failed) if failed else "")
    shown.add_section()
    for number, unit in sorted(progress.running.items()):
        shown.add_row(f"[{number}] {unit.title}", state(unit, machine), "", "")
    shown.add_row(f"{len(progress.todo)} units wait", "", "", "")
    return shown


def state(unit: Unit, machine: Machine) -> str:
    """How far a unit is, from the last line of its run's metrics."""
    folder = machine.folder(unit)
    if folder is None:
        return "measuring"
    if (folder / "encoder").is_dir():
        return "evaluating"
    path = folder / METRICS
    finished = [line for line in path.read_text().split("\n")[:-1] if line] if path.exists() else []
    if not finished:
        return "starting"
    last = json.loads(finished[-1])
    return f"epoch {int(last['epoch']) + 1}/{unit.options['epochs']}, loss {last['loss']:.3f}"


def lines() -> Show:
    """One line on stderr for each unit that begins or ends."""
    started = time.monotonic()
    begun: set[str] = set()
    told = 0

    def show(progress: Progress) -> None:
        nonlocal told
        for unit in progress.running.values():
            if unit.key not in begun:
                begun.add(unit.key)
                _say(started, f"begins: {unit.title}")
        for unit in progress.finished[told:]:
            reasons = {progress.failures[key] for key in unit.evaluations if key in progress.failures}
            outcome = (
                f"failed: {unit.title}: {'; '.join(sorted(reasons))}" if reasons else f"done:   {unit.title}"
            )
            left = len(progress.todo) + len(progress.running)
            _say(started, f"{outcome} ({left} left)")
        told = len(progress.finished)

    return show


def _say(started: float, text: str) -> None:
    print(f"{time.monotonic() - started:7.0f} s  {text}", file=sys.stderr, flush=True)
