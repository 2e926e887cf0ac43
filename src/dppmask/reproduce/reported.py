"""What a report tells of: all that is measured at its scale, whichever commands measured it."""

from collections.abc import Sequence
from dataclasses import replace

from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import Experiment, load_experiment
from dppmask.reproduce.reading import experiment_names
from dppmask.reproduce.scales import Scale
from dppmask.reproduce.units import Job, job_of


def reported(asked: Sequence[Experiment], scale: Scale, cells: Cells) -> list[Job]:
    """Experiments as a report shows them: those asked for, and every other that needs nothing more.

    Each has the seeds of which it is wholly measured; those asked for have the seeds of the command too.

    Args:
        asked: What the command was about.
        scale: With the seeds of the command.
        cells: What is measured.
    """
    names = [experiment.name for experiment in asked]
    shipped = experiment_names()
    others = [load_experiment(name) for name in shipped if name not in names]
    order = {name: place for place, name in enumerate(shipped)}
    shown = sorted([*asked, *others], key=lambda one: order.get(one.name, len(order)))
    found = []
    for experiment in shown:
        seeds = set(_measured_seeds(experiment, scale, cells))
        if experiment.name in names:
            seeds |= set(scale.seeds)
        if seeds or experiment.settings:
            found.append(job_of(experiment, replace(scale, seeds=tuple(sorted(seeds or scale.seeds)))))
    return found


def _measured_seeds(experiment: Experiment, scale: Scale, cells: Cells) -> list[int]:
    """Seeds of which every cell of an experiment stands."""
    written = sorted({cell["seed"] for cell in cells.values() if cell["scale"] == scale.name})
    if not written or (experiment.sweep and experiment.sweep not in scale.sweeps):
        return []
    whole = []
    for seed in written:
        units = job_of(experiment, replace(scale, seeds=(seed,))).units.values()
        if units and all(key in cells for unit in units for key in unit.evaluations):
            whole.append(seed)
    return whole
