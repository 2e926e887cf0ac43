"""Which experiments and seeds a report has."""

from dataclasses import replace

from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import load_experiment
from dppmask.reproduce.reported import reported
from dppmask.reproduce.scales import load_scale
from dppmask.reproduce.units import job_of

SMOKE = load_scale("smoke")


def written(path, name, seeds):
    """Cells as they would stand after ``reproduce NAME``."""
    cells = Cells(path)
    job = job_of(load_experiment(name), replace(SMOKE, seeds=seeds))
    for (_, seed), unit in job.units.items():
        for key in unit.evaluations:
            cells.add({"key": key, "seed": seed, "scale": "smoke"})
    return cells


def told(asked, scale, cells):
    """Name of each measured experiment → its seeds."""
    jobs = reported([load_experiment(name) for name in asked], scale, cells)
    return {job.experiment.name: sorted({seed for _, seed in job.units}) for job in jobs if job.units}


def test_what_was_measured_before_stays_in_the_report(tmp_path):
    cells = written(tmp_path / "cells.jsonl", "table2", (0, 1, 2))
    assert told(["figure7"], SMOKE, cells) == {"table2": [0, 1, 2], "figure7": [0]}
    assert told(["table2"], SMOKE, cells) == {"table2": [0, 1, 2]}


def test_what_lacks_a_cell_is_left_out_unless_asked_for(tmp_path):
    cells = written(tmp_path / "whole.jsonl", "table2", (0, 1))
    some = Cells(tmp_path / "cells.jsonl")
    for cell in cells.values()[1:]:
        some.add(cell)
    (lacking,) = {cell["seed"] for cell in cells.values()[:1]}
    assert told(["figure7"], SMOKE, some) == {"table2": [1 - lacking], "figure7": [0]}
    assert told(["table2"], replace(SMOKE, seeds=(lacking,)), some) == {"table2": [0, 1]}


def test_an_experiment_of_one_seed_stays_when_another_has_more(tmp_path):
    cells = written(tmp_path / "cells.jsonl", "figure5", (1,))
    assert told(["figure7"], SMOKE, cells) == {"figure5": [1], "figure7": [0]}
    for cell in written(tmp_path / "more.jsonl", "table2", (0,)).values():
        cells.add(cell)
    assert told(["figure7"], SMOKE, cells) == {"table2": [0], "figure5": [1], "figure7": [0]}


def test_other_scales_and_nothing_at_all(tmp_path):
    cells = written(tmp_path / "cells.jsonl", "table2", (0,))
    assert told(["figure7"], load_scale("tiny"), cells) == {"figure7": [0, 1]}
    jobs = reported([load_experiment("figure7")], SMOKE, Cells(tmp_path / "none"))
    assert [job.experiment.name for job in jobs] == ["table7", "table8", "figure7"]  # settings need no cell
