"""Kill -9 the runner in the middle of a training: started again, it gives the report it would have given."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest

from dppmask.reproduce import report
from dppmask.reproduce.cells import Cells, locked
from dppmask.reproduce.experiments import experiment_of
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.request import Request
from dppmask.reproduce.runner import run_units
from dppmask.reproduce.units import job_of, merged

PATIENCE = 300.0


@pytest.fixture
def job(content, scale):
    """One training of 16 steps with random masks; one of its two evaluations cannot be done, one is drawn."""
    del content["rows"]["dpp"]
    content["pictures"] = [{"caption": "The scores.", "evaluation": "knn"}]
    broken = Request((), {"protocol": {"init_args": {"k": [100]}}})
    long = scale.pretrain["mae"].then(Request((), {"epochs": 4}))
    evaluate = {**scale.evaluate, "finetune": scale.evaluate["knn"].then(broken)}
    scale = replace(scale, seeds=(0,), pretrain={"mae": long}, evaluate=evaluate)
    return job_of(experiment_of("table0", content, where=""), scale)


def is_training(units, cells, machine):
    return (machine.folder(units[0]) / "checkpoints" / "last.ckpt").exists()


def is_evaluating(units, cells, machine):
    return cells.path.exists()


def killed(when, units, cells, machine):
    """Run in a process of its own, and kill that as soon as it is so far."""
    child = os.fork()
    if child == 0:
        try:
            run_units(units, cells, machine)
        finally:
            os._exit(0)
    deadline = time.monotonic() + PATIENCE
    while not when(units, cells, machine):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with locked(machine.lock, patience=PATIENCE):  # free once the worker has noticed
        pass


def told(job, scale, path, monkeypatch):
    """Both reports, with dates and times taken out of the cells."""
    monkeypatch.setattr(report, "describe_environment", dict)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for cell in lines:
        cell |= {"date": "today", "timings": {"seconds": 1.0, "images_per_second": 1.0}}
    folder = path.parent / "told"
    folder.mkdir()
    (folder / path.name).write_text("".join(json.dumps(cell) + "\n" for cell in lines))
    shutil.copytree(path.parent / "records", folder / "records")
    html = report.write_reports([job], scale, Cells(folder / path.name), folder)
    return html.read_text(), html.with_suffix(".md").read_text()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("when", [is_training, is_evaluating])
def test_killed_and_started_again_it_gives_the_same_report(tmp_path, job, scale, monkeypatch, when):
    monkeypatch.setattr("dppmask.reproduce.machine.SAVE_LAST_EVERY", 3)
    reports = []
    for name in ("undisturbed", "disturbed"):
        machine = Machine(tmp_path / name)
        path = tmp_path / name / "cells.jsonl"
        units = merged([job])
        machine.work.mkdir()
        if name == "disturbed":
            killed(when, units, Cells(path), machine)
            assert machine.folder(units[0]).is_dir()
        progress = run_units(units, Cells(path), machine)
        assert ["k must be at most" in reason for reason in progress.failures.values()] == [True]
        assert len(path.read_text().splitlines()) == 2
        reports.append(told(job, scale, path, monkeypatch))
        environment = json.loads((machine.folder(units[0]) / "environment.json").read_text())
        assert len(environment["resumed"]) == (name == "disturbed")
    assert reports[0] == reports[1]
    assert "40.00" in reports[0][1]
    assert "![The scores.]" in reports[0][1]
