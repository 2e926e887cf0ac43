"""Kill -9 a training again and again: it ends bit-equal to the undisturbed one.

``DPPMASK_KILLS=20 pytest tests/training/chaos`` makes the chain longer.
"""

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from chaos_run import IMAGES_PER_STEP, train

from dppmask.rng import fold_seed

KILLS = int(os.environ.get("DPPMASK_KILLS", "4"))
EPOCHS = 4 + 2 * KILLS
PATIENCE = 300.0  # seconds


@pytest.fixture(scope="module")
def start():
    """Start a training in a fresh process, forked from a server that has done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dppmask.training.run", "dppmask.data.scenes", "chaos_run"])

    def started(run, num_workers):
        process = context.Process(target=train, args=(run, num_workers, EPOCHS))
        process.start()
        return process

    return started


def finish(process):
    process.join(PATIENCE)
    assert process.exitcode == 0


def wait_for_a_checkpoint(run, process):
    """Until ``last.ckpt`` is a new one; -1 while there is none."""
    last = run / "checkpoints" / "last.ckpt"

    def version():
        return last.stat().st_mtime_ns if last.exists() else -1

    before, deadline = version(), time.monotonic() + PATIENCE
    while version() == before:
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def lines(run):
    parsed = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in parsed]


def seconds_per_step(run):
    speeds = [
        json.loads(line)["images_per_second"] for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    return IMAGES_PER_STEP / sorted(speeds)[len(speeds) // 2]


def test_a_chain_of_kills_ends_bit_equal_to_the_undisturbed_run(tmp_path, start):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(start(undisturbed, 0))
    step = seconds_per_step(undisturbed)
    dice = random.Random(fold_seed(0, KILLS))
    for kill in range(KILLS):
        process = start(disturbed, num_workers=2 * (kill % 2))
        if kill % 4 != 3:  # else somewhere while it starts up
            wait_for_a_checkpoint(disturbed, process)
        time.sleep(dice.uniform(0, 4 * step))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it was still at work
    finish(start(disturbed, 2))

    contents = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (disturbed, undisturbed)
    ]
    for part in ("state_dict", "optimizer_states", "callbacks", "global_step"):
        torch.testing.assert_close(contents[0][part], contents[1][part], rtol=0, atol=0)
    assert contents[0]["global_step"] == 4 * EPOCHS
    assert lines(disturbed) == lines(undisturbed)
    exported = [run / "encoder" / "model.safetensors" for run in (disturbed, undisturbed)]
    assert exported[0].read_bytes() == exported[1].read_bytes()
    assert len(json.loads((disturbed / "environment.json").read_text())["resumed"]) <= KILLS
    assert not list(disturbed.rglob(".writing-*"))
