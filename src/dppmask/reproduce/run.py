"""``reproduce``: experiments at a scale, from nothing to the report."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dppmask.errors import UserError
from dppmask.reproduce.cells import CELLS, Cells
from dppmask.reproduce.experiments import load_experiment
from dppmask.reproduce.live import showing
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.plan import plan as plan_text
from dppmask.reproduce.reading import experiment_names
from dppmask.reproduce.recheck import as_text, recheck
from dppmask.reproduce.report import write_reports
from dppmask.reproduce.reported import reported
from dppmask.reproduce.runner import FAILURES, run_units
from dppmask.reproduce.scales import Scale, load_scale
from dppmask.reproduce.units import job_of, merged

SMOKE = "smoke"


def reproduce(
    names: Sequence[str],
    *,
    scale: str = "tiny",
    plan: bool = False,
    results: str | None = None,
    work: str = "runs/reproduce",
    seeds: Sequence[int] = (),
    jobs: int | None = None,
    device: str = "auto",
    num_workers: int = 0,
    data_roots: Mapping[str, str] | None = None,
    launch: str = "",
    keep: bool = False,
    check: Sequence[str] = (),
) -> str:
    """Fill in the paper's tables and figures, and write the report.

    What is measured already, by the lines of cells.jsonl, is not measured again: the same command goes on
    after an interruption, and adds what is missing on another machine. The report has these experiments, and
    all others of the scale that are wholly measured.

    Args:
        names: table1 … table9, figure1 … figure8, the path of an experiment of your own, or all.
        scale: How much of everything: smoke, tiny, small or paper.
        plan: Say what it would cost, and start nothing.
        results: Folder of cells.jsonl, the records behind pictures and the reports; docs/results by default,
            work/smoke for smoke.
        work: Folder of the runs, which go as soon as their cells stand.
        seeds: Of the runs; those of the scale by default.
        jobs: Processes at a time: one per GPU by default, or per core where there is none; with launch, one.
        device: "auto" (GPUs where there are some), "cpu" or "cuda".
        num_workers: Loader processes of each run.
        data_roots: Name of a data set → its folder.
        launch: What stands before the command of a pre-training, to spread each over devices: "srun …", or
            "torchrun --nproc_per_node 8 --no-python --".
        keep: Keep the folders of finished runs.
        check: Cells to measure once more and compare with what is written down, each as
            EXPERIMENT/ROW/SEED/EVALUATION: table2/random/0/knn; nothing is written.

    Returns:
        The plan, the comparison, or the path of the report.

    Raises:
        UserError: If an option is wrong, or cells failed; the report is written all the same. Or
            if a checked cell comes out otherwise.
    """
    chosen = _with_seeds(load_scale(scale), seeds)
    asked = [load_experiment(name) for name in _chosen(names)]
    todo = [job_of(experiment, chosen) for experiment in asked]
    folder = Path(results) if results else Path(work) / SMOKE if scale == SMOKE else Path("docs/results")
    cells = Cells(folder / CELLS)
    machine = Machine.here(
        Path(work),
        jobs=jobs,
        device=device,
        data_roots=data_roots or {},
        launch=tuple(shlex.split(launch)),
        num_workers=num_workers,
    )
    units = merged(todo)
    if plan:
        return plan_text(todo, units, chosen, cells, machine)
    if check:
        known = reported(asked, chosen, cells)
        with showing(known, cells, machine) as show:
            compared = recheck(check, known, cells, machine, show)
        return as_text(compared)
    with showing(todo, cells, machine) as show:
        progress = run_units(units, cells, machine, show=show, keep=keep)
    path = write_reports(reported(asked, chosen, cells), chosen, cells, folder)
    if progress.failures:
        raise UserError(
            f"{len(progress.failures)} cells failed, as {machine.work / FAILURES} tells; the same command "
            f"tries them again. The rest is in {path}"
        )
    return str(path)


def _chosen(names: Sequence[str]) -> list[str]:
    """Names without repetition; "all" is every shipped one."""
    if not names:
        raise UserError(f"name an experiment: {', '.join(experiment_names())}, or all")
    found = [one for name in names for one in (experiment_names() if name == "all" else [name])]
    return list(dict.fromkeys(found))


def _with_seeds(scale: Scale, seeds: Sequence[int]) -> Scale:
    return replace(scale, seeds=tuple(seeds)) if seeds else scale
