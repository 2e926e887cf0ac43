"""The runner among workers that measure nothing, fail, die or hang."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dppmask.errors import UserError
from dppmask.reproduce import pool, runner
from dppmask.reproduce.cells import Cells, locked
from dppmask.reproduce.experiments import experiment_of, load_experiment
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.recheck import only
from dppmask.reproduce.request import Request
from dppmask.reproduce.runner import missing, run_units
from dppmask.reproduce.scales import load_scale
from dppmask.reproduce.units import job_of, merged


@pytest.fixture
def trouble(tmp_path, monkeypatch):
    """``trouble({key: "fail" | "die" | "wait"})`` sets what goes wrong."""
    path = tmp_path / "trouble.json"
    monkeypatch.setattr(
        pool, "COMMAND", [sys.executable, str(Path(__file__).with_name("fake_worker.py")), str(path)]
    )

    def write(kinds):
        path.write_text(json.dumps(kinds))

    write({})
    return write


@pytest.fixture
def units(experiment, scale):
    return merged([job_of(experiment, scale)])


@pytest.fixture
def work(tmp_path, trouble):
    """``work(units)`` runs them; the progress and the cells afterwards."""

    def go(units, jobs=2, **options):
        cells = Cells(tmp_path / "cells.jsonl")
        return run_units(units, cells, Machine(tmp_path / "work", jobs=jobs), **options), cells

    return go


def failures(tmp_path):
    path = tmp_path / "work" / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_cell_is_written_and_run_folders_go(work, units, tmp_path):
    progress, cells = work(units)
    assert len(progress.finished) == len(units) == 4
    assert not any(missing(unit, cells) for unit in units)
    assert not list((tmp_path / "work" / "runs").iterdir())
    cell = cells[next(iter(units[0].evaluations))]
    assert cell["title"] == "table0: random masks, seed 0"
    assert cell["commands"][0].startswith(
        "dppmask pretrain --config methods/mae_scenes_tiny --config masks/random"
    )
    assert cell["pretrain"] == units[0].identity


def test_folders_stay_when_asked(work, units, tmp_path):
    work(units, keep=True)
    assert {path.name for path in (tmp_path / "work" / "runs").iterdir()} == {unit.key for unit in units}


def test_a_failed_cell_is_reported_and_the_rest_goes_on(work, trouble, units, tmp_path):
    bad = next(e.key for e in units[1].evaluations.values() if e.name == "knn")
    trouble({bad: "fail"})
    progress, cells = work(units)
    assert progress.failures == {bad: "no luck"}
    assert [e.key for unit in units for e in missing(unit, cells)] == [bad]
    (failure,) = failures(tmp_path)
    assert (failure["key"], failure["evaluation"], failure["error"]) == (bad, "knn", "no luck")
    assert (tmp_path / "work" / "runs" / units[1].key).exists()

    (tmp_path / "work" / "runs" / units[1].key).rmdir()
    trouble({})
    begun = []
    progress, cells = work(units, show=lambda p: begun.extend(u.key for u in p.running.values()))
    assert set(begun) == {units[1].key}
    assert not missing(units[1], cells)


def test_a_worker_that_dies_takes_one_unit_with_it(work, trouble, units, tmp_path):
    first, second = (e.key for e in missing(units[0], Cells(tmp_path / "none")))
    trouble({second: "die"})
    progress, cells = work(units, jobs=1)
    assert first in cells
    assert progress.failures.keys() == {second}
    assert "the worker ended with code 9" in progress.failures[second]
    assert not any(missing(unit, cells) for unit in units[1:])


def test_an_interrupt_lets_workers_save(work, trouble, units, tmp_path):
    trouble({next(iter(units[0].evaluations)): "wait"})
    folder = tmp_path / "work" / "runs" / units[0].key

    def interrupt(progress):
        if folder.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(units, jobs=1, show=interrupt)
    assert (tmp_path / "stopped").exists()


def test_one_runner_per_folder(work, units, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "ORPHANS", 0.0)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "lock").touch()
    with (
        locked(tmp_path / "work" / "lock"),
        pytest.raises(UserError, match="another dppmask reproduce works in"),
    ):
        work(units)


def test_data_that_lies_nowhere_is_an_error_before_anything_starts(content, scale, work, tmp_path):
    folder = {"class_path": "dppmask.data.folder.ImageFolder", "init_args": {"root": "${photos}"}}
    content["rows"]["dpp"]["pretrain"]["data"] = folder
    units = merged([job_of(experiment_of("table0", content, where=""), scale)])
    with pytest.raises(
        UserError, match=r'the folder of data set photos is not known; give --data_roots \'{"photos'
    ):
        work(units)
    assert not (tmp_path / "work" / "runs").exists()
    here = Machine(tmp_path, data_roots={"photos": "/p"})
    task = here.task(units[1], missing(units[1], Cells(tmp_path / "none")))
    assert task["pretrain"]["data"]["init_args"]["root"] == "/p"


def test_the_training_is_read_first_and_an_evaluation_finds_what_another_left(experiment, scale, tmp_path):
    left = Request((), {"protocol": {"init_args": {"classifier": "${run}/finetune"}}})
    later = {"protocol": {"class_path": "dppmask.evaluation.backgrounds.Backgrounds"}}
    later |= {"data": scale.evaluate["knn"].options["data"]}
    evaluate = {**scale.evaluate, "finetune": Request((), later).then(left)}
    unit = merged([job_of(experiment, replace(scale, evaluate=evaluate))])[0]
    wanted = missing(unit, Cells(tmp_path / "none"))
    assert [evaluation.name for evaluation in wanted] == ["training", "knn", "finetune"]
    here = Machine(tmp_path)
    options = here.task(unit, wanted)["evaluations"][2]["options"]
    assert options["protocol"]["init_args"]["classifier"] == f"{here.folder(unit)}/finetune"
    assert "${run}" in str(wanted[2].identity)


def test_each_worker_has_its_gpu_and_a_single_one_has_all(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pair = Machine(tmp_path, jobs=3, gpus=(0, 1))
    assert [pair.environment(n)["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["0", "1", "0"]
    assert "CUDA_VISIBLE_DEVICES" not in Machine(tmp_path, jobs=1, gpus=(0, 1)).environment(0)
    assert Machine(tmp_path, jobs=2).environment(0)["CUDA_VISIBLE_DEVICES"] == ""


def test_a_run_on_several_devices_needs_all_of_them(experiment, scale, tmp_path):
    wide = {"mae": scale.pretrain["mae"].then(Request((), {"devices": 2}))}
    unit = merged([job_of(experiment, replace(scale, pretrain=wide))])[0]
    with pytest.raises(UserError, match="takes 2 devices, and each of 2 jobs has one; use --jobs 1"):
        Machine(tmp_path, jobs=2).task(unit, [])
    assert Machine(tmp_path, jobs=2, launch=("srun",)).task(unit, [])["launch"] == ["srun"]


def test_what_is_launched_sees_every_gpu_and_has_no_run_beside_it(experiment, scale, tmp_path, monkeypatch):
    assert Machine.here(tmp_path, jobs=None, device="cpu", launch=("srun",)).jobs == 1
    unit = merged([job_of(experiment, scale)])[0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    pair = Machine(tmp_path, jobs=2, gpus=(0, 1), launch=("srun",))
    assert pair.environment(1)["CUDA_VISIBLE_DEVICES"] == "1"
    assert pair.task(unit, [])["visible"] == "4,5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert pair.task(unit, [])["visible"] is None
    assert Machine(tmp_path, launch=("srun",)).task(unit, [])["visible"] == ""  # on the CPU: none


def test_what_is_timed_runs_last_and_alone(work, units):
    first = replace(
        units[0], evaluations={key: replace(e, timed=True) for key, e in units[0].evaluations.items()}
    )
    ordered = sorted([first, *units[1:]], key=lambda unit: unit.timed)
    seen = []
    progress, _ = work(ordered, jobs=4, show=lambda progress: seen.append(dict(progress.running)))
    assert len(progress.finished) == len(units)
    beside = [list(running.values()) for running in seen if first in running.values()]
    assert beside
    assert all(running == [first] for running in beside)


def test_timed_units_come_after_all_others(scale):
    units = merged(
        job_of(load_experiment(name), load_scale("smoke")) for name in ("table9", "figure5", "table3")
    )
    assert [unit.timed for unit in units] == sorted(unit.timed for unit in units)
    assert units[-1].timed
    assert not units[0].timed


def test_folders_that_a_kill_left_behind_go(work, units, tmp_path):
    work(units, keep=True)
    work(units)
    assert not list((tmp_path / "work" / "runs").iterdir())


def test_what_another_runner_has_done_since_is_not_begun(work, units, tmp_path):
    _, cells = work(units)
    other = {key: cells[key] for key in units[-1].evaluations}
    (tmp_path / "cells.jsonl").unlink()
    begun = []

    def show(progress):
        begun.extend(unit.key for unit in progress.running.values())
        for cell in other.values():
            Cells(tmp_path / "cells.jsonl").add(cell)

    progress, _ = work(units, jobs=1, show=show)
    assert len(progress.finished) == len(units)
    assert set(begun) == {unit.key for unit in units[:-1]}


def test_what_an_evaluation_reads_is_done_again_where_it_is_gone(experiment, scale, work, tmp_path):
    later = scale.evaluate["knn"].then(Request((), {"protocol": {"init_args": {"k": [2]}}}))
    scale = replace(scale, evaluate={**scale.evaluate, "finetune": later}, after={"finetune": "knn"})
    columns = {name: column for name, column in experiment.columns.items() if name != "knn"}
    rows = {name: replace(row, paper={}) for name, row in experiment.rows.items()}
    unit = merged([job_of(replace(experiment, columns=columns, rows=rows), scale)])[0]
    assert [e.name for e in missing(unit, Cells(tmp_path / "none"))] == ["training", "knn", "finetune"]
    work([unit])
    path = tmp_path / "cells.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"evaluation": "finetune"' not in line))
    assert [e.name for e in missing(unit, Cells(path))] == ["knn", "finetune"]
    work([unit])
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)  # the cell that stood was kept
    assert [e.name for e in only([unit], [key_of(unit, "finetune")])[0].evaluations.values()] == [
        "knn",
        "finetune",
    ]


def key_of(unit, name):
    return next(key for key, evaluation in unit.evaluations.items() if evaluation.name == name)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_again_and_again_it_gets_there(trouble, units, tmp_path):
    machine = Machine(tmp_path / "work", jobs=2)
    path = tmp_path / "cells.jsonl"
    wanted = sorted(key for unit in units for key in unit.evaluations)
    for number in range(len(wanted)):  # cells that stand when the next kill comes
        child = os.fork()
        if child == 0:
            try:
                run_units(units, Cells(path), machine)
            finally:
                os._exit(0)
        deadline = time.monotonic() + 60.0
        while len(Cells(path).values()) < number or not (machine.work / "runs").exists():
            assert time.monotonic() < deadline
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    progress = run_units(units, Cells(path), machine)
    assert not progress.failures
    lines = path.read_text().splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == sorted(
        k for u in units for k in u.evaluations
    )
    assert not list((tmp_path / "work" / "runs").iterdir())
