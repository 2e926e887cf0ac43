"""A key is the same in every process and on every machine, and another one for whatever changes a result."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from dppmask.evaluation.strategies import label_of
from dppmask.masks import DPPMask, PurgeSchedule
from dppmask.reproduce.experiments import load_experiment
from dppmask.reproduce.keys import cell_key, evaluation_identity, fingerprint, run_key, training_identity
from dppmask.reproduce.request import Request, pretraining
from dppmask.reproduce.scales import load_scale
from dppmask.reproduce.units import job_of
from dppmask.specs import build, describe, without_defaults

OTHER_PROCESS = """
from dppmask.reproduce.experiments import load_experiment
from dppmask.reproduce.scales import load_scale
from dppmask.reproduce.units import job_of
job = job_of(load_experiment("table2"), load_scale("smoke"))
print(*(key for unit in job.units.values() for key in (unit.key, *unit.evaluations)))
"""

# Of all runs and cells at scale tiny. Results that stand in a file of cells are found again as long
# as these stay: they change with a recipe or a scale, and must not change with anything else.
KEYS = {
    "table1": "465d76587a29454d",
    "table2": "c0821a7adde30ff4",
    "table4": "a1eca3c0623c968f",
    "figure7": "1a39f025687d3502",
}


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def test_keys_are_those_of_another_process():
    job = job_of(load_experiment("table2"), load_scale("smoke"))
    here = [key for unit in job.units.values() for key in (unit.key, *unit.evaluations)]
    there = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == here


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_cells_that_are_measured_stay(name):
    scale = replace(load_scale("tiny"), seeds=(0, 1, 2))
    units = job_of(load_experiment(name), scale).units.values()
    assert fingerprint(sorted(key for unit in units for key in (unit.key, *unit.evaluations))) == KEYS[name]


def test_the_order_of_keys_does_not_matter(scale, experiment):
    unit = job_of(experiment, scale).units["dpp", 0]
    assert run_key(training_identity(reversed_keys(unit.options))) == unit.key


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 3},
        {"epochs": 3},
        {"mask_ratio": 0.5},
        {"mask": {"init_args": {"purge_ratio": 0.31}}},
        {"data": {"init_args": {"train_size": 17}}},
        {"data": {"init_args": {"seed": 1}}},
        {"precision": "bf16-mixed"},
    ],
    ids=str,
)
def test_what_changes_weights_changes_the_key(scale, experiment, change):
    request = job_of(experiment, scale).units["dpp", 0].request
    keys = {
        run_key(training_identity(pretraining(one))) for one in (request, request.then(Request((), change)))
    }
    assert len(keys) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"num_workers": 4, "save_every": 1, "log_every": 7, "accelerator": "gpu"},
        {"data": {"init_args": {"cache_dir": "/somewhere"}}},
        {"weight_decay": 0.05},  # what the recipe says already
        {"weight_decay_end": None},  # the default
    ],
    ids=str,
)
def test_what_changes_no_weights_does_not(scale, experiment, change):
    request = job_of(experiment, scale).units["dpp", 0].request
    keys = {
        run_key(training_identity(pretraining(one))) for one in (request, request.then(Request((), change)))
    }
    assert len(keys) == 1


def test_a_cell_depends_on_run_evaluation_and_seed(scale, experiment):
    options = next(
        e for e in job_of(experiment, scale).units["dpp", 0].evaluations.values() if e.request
    ).options
    known = evaluation_identity(options)
    again = evaluation_identity({**options, "batch_size": 7, "num_workers": 3})
    other = evaluation_identity({**options, "precision": "bf16"})
    assert known == again != other
    keys = {
        cell_key(run, ev, seed) for run in ("a", "b", None) for ev in (known, other, None) for seed in (0, 1)
    }
    assert len(keys) == 18


class Before:
    def __init__(self, *, width: int, mask=DPPMask()):  # noqa: B008
        self.width, self.mask = width, mask


class After(Before):
    def __init__(self, *, width: int, mask=DPPMask(), depth: int = 3):  # noqa: B008
        super().__init__(width=width, mask=mask)
        self.depth = depth


def test_a_new_option_with_a_default_changes_nothing():
    def told(value):
        return without_defaults(describe(value))["init_args"]

    mask = DPPMask(purge_ratio=0.1)
    assert told(Before(width=2)) == told(After(width=2)) == {"width": 2}
    assert told(Before(width=2, mask=mask)) == told(After(width=2, mask=mask))
    assert told(After(width=2, depth=4)) == {"width": 2, "depth": 4}
    assert describe(build(without_defaults(describe(mask)))) == describe(mask)


KNOWN = "dppmask.masks.dpp.DPPMask"


@pytest.mark.parametrize(
    ("mask", "told", "label"),
    [
        (DPPMask(), {}, "DPPMask"),
        (DPPMask(0.1), {"purge_ratio": 0.1}, "DPPMask(purge_ratio=0.1)"),
        (DPPMask(0.3, "tokens", 1.0, "noise"), {}, "DPPMask"),
        (DPPMask(source="pixels", bandwidth=0.5), {"source": "pixels", "bandwidth": 0.5}, None),
        (DPPMask(first="argmax"), {"first": "argmax"}, "DPPMask(first=argmax)"),
    ],
    ids=repr,
)
def test_masks_are_told_by_what_is_not_default(mask, told, label):
    """Keys of what was measured before masks had all their options."""
    assert without_defaults(describe(mask)) == {"class_path": KNOWN, "init_args": told}
    assert label in (None, label_of(mask))


@pytest.mark.parametrize(
    ("name", "row", "run", "cells"),
    [
        ("table1", "random", "733df0c03c434771", "f1960e3bf94e2c73"),
        ("table1", "dpp_0.3", "496d68f9cb1eca86", "4ccd99863a64ffaa"),
        ("table1", "dpp_0.1", "d61130614091965b", "025edc59b427ef81"),
    ],
)
def test_keys_of_what_was_measured_before_stay(name, row, run, cells):
    unit = job_of(load_experiment(name), load_scale("smoke")).units[row, 0]
    assert unit.key == run
    assert {e.name: key for key, e in unit.evaluations.items()}["masks_own"] == cells


def test_a_schedule_has_a_label_of_its_own():
    schedule = PurgeSchedule(DPPMask(0.0), end=0.6)
    assert label_of(schedule) == "PurgeSchedule(strategy=DPPMask(purge_ratio=0.0), end=0.6)"


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"x": float("nan")})


def test_rows_that_differ_in_the_baseline_only_are_one_run(scale, experiment):
    rows = {name: replace(row, baseline=None) for name, row in experiment.rows.items()}
    one, two = job_of(experiment, scale), job_of(replace(experiment, rows=rows), scale)
    assert [unit.key for unit in one.units.values()] == [unit.key for unit in two.units.values()]
