"""The runner: hands units to workers, writes their cells down, keeps going when something fails."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dppmask import specs
from dppmask.errors import UserError
from dppmask.files import append_line
from dppmask.reproduce.cells import Cell, Cells, Record, locked
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.pool import Pool, Worker
from dppmask.reproduce.units import Evaluation, Unit

FAILURES = "failures.jsonl"
RUN = "RUN"  # the run folder in the commands that are shown
ORPHANS = 10.0  # seconds that the workers of a killed runner may need to notice
TICK = 1.0  # seconds between two looks at what is going on
KEPT = ("metrics", "standard_errors", "baselines", "notes", "timings", "commit", "date", "python", "versions")


@dataclass
class Progress:
    """What the runner is doing, for whoever shows it.

    Attributes:
        todo: Units that lack cells, in order.
        running: By number of the worker.
        finished: Units that are done in this session.
        failures: Why, by key of the cell.
    """

    todo: list[Unit]
    running: dict[int, Unit] = field(default_factory=dict)
    finished: list[Unit] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


Show = Callable[[Progress], None]


def run_units(
    units: Sequence[Unit],
    cells: Cells,
    machine: Machine,
    *,
    show: Show = lambda progress: None,
    keep: bool = False,
) -> Progress:
    """Measure every cell that is missing. Started again after anything at all, it goes on where it was.

    Args:
        units: In the order in which to begin them; one that is timed waits until it is alone.
        cells: Where results are written.
        machine: Where the work is done.
        show: Called about once a second and at every change.
        keep: Whether run folders stay once all their cells stand.

    Returns:
        What was done and what failed; failed cells are tried again the next time.

    Raises:
        UserError: If another runner works in the same folder, or a data set's folder is not known.
    """
    machine.work.mkdir(parents=True, exist_ok=True)
    machine.lock.touch()
    progress = Progress([unit for unit in units if missing(unit, cells)])
    for unit in progress.todo:
        machine.task(unit, missing(unit, cells))  # what it refuses shows before anything begins
    with _alone(machine) as lock, Pool(machine, lock) as pool:
        if not keep:
            for unit in units:
                _clear(unit, cells, machine)  # a kill may have come before
        while progress.todo or pool.busy():
            while _may_begin(progress) and (worker := pool.idle()):
                _begin(worker, progress.todo.pop(0), cells, machine, progress)
            show(progress)
            for worker, event in pool.events(TICK):
                _record(worker, event, cells, machine, progress, keep=keep)
    show(progress)
    return progress


def missing(unit: Unit, cells: Cells) -> list[Evaluation]:
    """The evaluations of a unit that are to be done, in order.

    One that is done already is done again where another reads what it left in a run folder that is gone.
    """
    return unit.with_what_they_need(e for e in unit.evaluations.values() if not cells.has(e))


def commands(unit: Unit, evaluation: Evaluation) -> list[str]:
    """How one would type what gives a cell."""
    trained = [] if unit.request is None else [unit.request.command("dppmask pretrain", run=RUN)]
    if evaluation.request is None:
        return trained
    run = {} if unit.request is None else {"run": RUN}
    return [*trained, evaluation.request.command("dppmask evaluate", **run, seed=unit.seed)]


def cell_of(unit: Unit, evaluation: Evaluation, record: dict[str, Any]) -> Cell:
    """One line of ``cells.jsonl``: numbers, and everything needed to get them again."""
    return {
        "key": evaluation.key,
        "title": unit.title,
        "scale": unit.scale,
        "method": unit.method,
        "run": unit.key if unit.request else None,
        "seed": unit.seed,
        "evaluation": evaluation.name,
        **{name: record[name] for name in KEPT if name in record},
        "hardware": record["hardware"],
        "pretrain": unit.identity,
        "evaluate": evaluation.identity,
        "commands": commands(unit, evaluation),
    }


def record_of(unit: Unit, evaluation: Evaluation, record: Record) -> Record:
    """A whole record, without the folders of the machine it was made on."""
    return {
        **record,
        "settings": specs.describe(specs.build(evaluation.options["protocol"])),
        "data": evaluation.options["data"],
        "subject": {**record["subject"], "source": RUN if unit.request else None},
        "command": commands(unit, evaluation)[-1],
    }


def _may_begin(progress: Progress) -> bool:
    """Whether the next unit may be given to a worker that is idle: one that is timed runs alone."""
    if not progress.todo:
        return False
    beside = progress.running.values()
    return not beside or not (progress.todo[0].timed or any(unit.timed for unit in beside))


@contextmanager
def _alone(machine: Machine) -> Iterator[int]:
    """Hold the work folder.

    Raises:
        UserError: If another runner holds it.
    """
    with ExitStack() as held:
        try:
            lock = held.enter_context(locked(machine.lock, patience=ORPHANS))
        except BlockingIOError:
            raise UserError(
                f"another dppmask reproduce works in {machine.work}; wait for it, or choose another --work"
            ) from None
        yield lock


def _begin(worker: Worker, unit: Unit, cells: Cells, machine: Machine, progress: Progress) -> None:
    """Hand a unit to a worker, unless another runner has done it since."""
    cells.read()
    wanted = missing(unit, cells)
    if not wanted:
        progress.finished.append(unit)
        return
    worker.task = unit
    progress.running[worker.number] = unit
    worker.give(machine.task(unit, wanted))


def _record(
    worker: Worker,
    event: dict[str, Any],
    cells: Cells,
    machine: Machine,
    progress: Progress,
    *,
    keep: bool,
) -> None:
    """Act on what a worker says."""
    unit: Unit | None = worker.task
    if unit is None:  # it died of old age
        return
    match event["event"]:
        case "cell":
            evaluation = unit.evaluations[event["key"]]
            if cells.has(evaluation):  # it was done again for what it leaves behind
                return
            if evaluation.recorded:
                cells.keep(evaluation.key, record_of(unit, evaluation, event["record"]))
            cells.add(cell_of(unit, evaluation, event["record"]))
        case "failed" if not cells.has(unit.evaluations[event["key"]]):
            _fail(unit, event["key"], event["error"], event["traceback"], machine, progress)
        case "died":
            for evaluation in (one for one in missing(unit, cells) if not cells.has(one)):
                reason = f"the worker ended with code {event['code']}; see {worker.log}"
                _fail(unit, evaluation.key, reason, "", machine, progress)
            _finish(worker, unit, cells, machine, progress, keep=keep)
        case "done":
            _finish(worker, unit, cells, machine, progress, keep=keep)


def _finish(
    worker: Worker, unit: Unit, cells: Cells, machine: Machine, progress: Progress, *, keep: bool
) -> None:
    worker.task = None
    del progress.running[worker.number]
    progress.finished.append(unit)
    if not keep:
        _clear(unit, cells, machine)


def _clear(unit: Unit, cells: Cells, machine: Machine) -> None:
    """Remove the run folder of a unit whose cells all stand."""
    folder = machine.folder(unit)
    if folder is not None and not missing(unit, cells):
        shutil.rmtree(folder, ignore_errors=True)


def _fail(unit: Unit, key: str, error: str, trace: str, machine: Machine, progress: Progress) -> None:
    """A failure is written down beside the work, never as a cell."""
    progress.failures[key] = error
    line = {
        "key": key,
        "title": unit.title,
        "evaluation": unit.evaluations[key].name,
        "error": error,
        "traceback": trace,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    append_line(machine.work / FAILURES, json.dumps(line))
