"""A pre-training as a command of its own: how it ends, how it is stopped, and two ranks through torchrun."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dppmask.errors import UserError
from dppmask.reproduce import pool, worker
from dppmask.reproduce.launch import launch
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.request import Request
from dppmask.reproduce.units import job_of, merged

TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node", "2", "--no-python", "--"]
STOPPABLE = """
import pathlib, signal, sys, time

def save(number, frame):
    pathlib.Path(sys.argv[1]).with_name("saved").touch()
    sys.exit(0)

signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""


def waited_for(path):
    deadline = time.monotonic() + 120.0
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit(3)", "ended with code 3: nothing was said"),
        ("import sys; print('one'); print('two', file=sys.stderr); sys.exit(1)", "ended with code 1: two"),
        ("print('dppmask pretrain: no'); print('=' * 9); 1 / 0", "ended with code 1: dppmask pretrain: no"),
    ],
)
def test_what_failed_says_why(script, message):
    with pytest.raises(UserError, match=message):
        launch([sys.executable, "-uc", script])


def test_the_end_and_an_interruption_are_told_apart(capfd):
    assert launch([sys.executable, "-c", "print('trained')"])
    assert capfd.readouterr().err == "trained\n"
    assert not launch([sys.executable, "-c", "import sys; sys.exit(130)"])


def test_a_signal_is_passed_on_and_waited_for(tmp_path):
    ready = tmp_path / "ready"
    before = signal.getsignal(signal.SIGTERM)

    def stop():
        waited_for(ready)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    assert not launch([sys.executable, "-c", STOPPABLE, str(ready)])
    thread.join()
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_orphan_tells_what_it_has_launched_to_save(tmp_path):
    ready = tmp_path / "ready"
    task = {
        "folder": str(tmp_path / "run"),
        "pretrain": {},
        "evaluations": [],
        "launch": [sys.executable, "-c", STOPPABLE, str(ready)],
        "visible": "",
        "threads": None,
    }
    with subprocess.Popen(pool.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
        waited_for(ready)
        process.stdin.close()  # as when its parent is gone
        assert process.wait(60) == worker.ORPHANED
    waited_for(tmp_path / "saved")


def test_two_ranks_through_torchrun_learn_what_one_with_two_micro_batches_does(
    experiment, scale, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def trained(name, options, **more):
        methods = {"mae": scale.pretrain["mae"].then(Request((), {"batch_size": 2, **options}))}
        unit = merged([job_of(experiment, replace(scale, pretrain=methods))])[0]
        machine = Machine(tmp_path / name, **more)
        machine.work.mkdir()
        task = machine.task(unit, [e for e in unit.evaluations.values() if e.name == "training"])
        events = []
        worker.do(task, events.append)
        assert [event["event"] for event in events] == ["cell", "done"], events
        return events[0]["record"]["metrics"]

    two = trained("two", {"devices": 2, "strategy": "ddp"}, launch=tuple(TORCHRUN))
    one = trained("one", {"accumulate": 2})
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert (two["steps"], two["images"]) == (one["steps"], one["images"]) == (8, 32)
