"""Interrupted anywhere, a run ends as if nothing had happened: bit for bit."""

import json
import os
import signal
import stat

import pytest
import torch

from dppmask.errors import UserError
from dppmask.masks import DPPMask, PurgeSchedule
from dppmask.training.run import pretrain


class PowerCut(BaseException):
    """What no code of the library catches."""


def cut():
    raise PowerCut


def equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# 24 micro-batches, two a step; an epoch ends at 8, 16 and 24.
@pytest.mark.parametrize(
    ("hook", "count", "save_last_every"),
    [
        ("on_train_start", 1, 1),
        ("on_train_batch_start", 7, 3),
        ("on_train_batch_start", 9, 1),  # the checkpoint is of the end of an epoch
        ("on_train_batch_end", 8, 1),
        ("on_train_batch_end", 9, 3),
        ("on_before_optimizer_step", 7, 1),
        ("on_train_epoch_end", 1, 1),
        ("on_train_epoch_start", 3, 1),
        ("on_train_batch_end", 24, 3),
        ("on_train_end", 1, 3),
    ],
)
def test_cut_anywhere(tiny, undisturbed, interrupt, weights, lines, hook, count, save_last_every):
    changes = {"ema": 0.9, "save_last_every": save_last_every}
    with pytest.raises(PowerCut):
        tiny(callbacks=[interrupt(hook, count, cut)], **changes)
    result = tiny(resume=True, **changes)
    assert result.finished
    equal(weights(result.path), weights(undisturbed.path))
    assert lines(result.path) == lines(undisturbed.path)
    exported = [(run.path / "encoder" / "model.safetensors").read_bytes() for run in (result, undisturbed)]
    assert exported[0] == exported[1]


def test_cut_again_and_again_with_other_workers(tiny, undisturbed, interrupt, weights, lines):
    for count, num_workers in [(5, 0), (7, 2), (8, 0)]:
        with pytest.raises(PowerCut):
            tiny(
                ema=0.9,
                save_last_every=1,
                num_workers=num_workers,
                callbacks=[interrupt("on_train_batch_start", count, cut)],
                resume=True,
            )
    result = tiny(ema=0.9, save_last_every=1, resume=True)
    equal(weights(result.path), weights(undisturbed.path))
    assert lines(result.path) == lines(undisturbed.path)
    environment = json.loads((result.path / "environment.json").read_text())
    assert len(environment["resumed"]) == 3


def test_other_seed_gives_other_weights(tiny, undisturbed, weights):
    """The comparison above can fail."""
    with pytest.raises(AssertionError):
        equal(weights(tiny(seed=1, ema=0.9).path), weights(undisturbed.path))


def test_resume_needs_nothing_but_the_run(tiny, interrupt, weights):
    expected = tiny("undisturbed", mask_ratio=0.5)
    with pytest.raises(PowerCut):
        tiny(mask_ratio=0.5, callbacks=[interrupt("on_train_batch_start", 12, cut)])
    run = expected.path.with_name("run")
    result = pretrain(run=run, resume=True)
    equal(weights(result.path), weights(expected.path))
    with pytest.raises(
        UserError, match=r"cannot resume .*run with mask_ratio=0\.6: it was started with 0\.5"
    ):
        pretrain(run=run, resume=True, mask_ratio=0.6)
    with pytest.raises(UserError, match=r"cannot resume .*run with mask_ratio=0\.75"):
        pretrain(run=run, resume=True, mask_ratio=0.75)  # the default, but not what it was started with


def test_a_purge_schedule_goes_on_where_it_stopped(tiny, interrupt, weights, lines):
    mask = PurgeSchedule(DPPMask(0.0), end=1.0)
    expected = tiny("undisturbed", mask=mask)
    with pytest.raises(PowerCut):
        tiny(mask=mask, callbacks=[interrupt("on_train_batch_start", 15, cut)])
    result = tiny(mask=mask, resume=True)
    equal(weights(result.path), weights(expected.path))
    assert lines(result.path) == lines(expected.path)
    with pytest.raises(AssertionError):
        equal(weights(tiny("constant", mask=DPPMask(0.0)).path), weights(expected.path))


def test_resuming_a_finished_run_changes_nothing(tiny, weights, lines):
    first = tiny()
    before, numbers = weights(first.path), lines(first.path)
    again = tiny(resume=True)
    assert again.finished
    assert again.metrics == first.metrics
    equal(weights(again.path), before)
    assert lines(again.path) == numbers


def test_resume_without_a_run_starts_one(tiny, undisturbed, weights):
    """It was killed before it could write anything."""
    equal(weights(tiny(resume=True, ema=0.9).path), weights(undisturbed.path))


@pytest.mark.parametrize("count", [3, 4, 8])  # within a step, at its end, at the end of an epoch
def test_sigterm_saves_at_the_next_step_and_stops(tiny, undisturbed, interrupt, weights, lines, count):
    before = signal.getsignal(signal.SIGTERM)
    terminate = interrupt("on_train_batch_start", count, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopped = tiny(callbacks=[terminate], save_last_every=100, ema=0.9)
    assert not stopped.finished
    assert weights(stopped.path)["global_step"] == (count + 1) // 2
    assert not (stopped.path / "encoder").exists()
    assert signal.getsignal(signal.SIGTERM) == before
    result = tiny(resume=True, save_last_every=100, ema=0.9)
    assert result.finished
    equal(weights(result.path), weights(undisturbed.path))
    assert lines(result.path) == lines(undisturbed.path)


def test_ctrl_c_saves_too_and_a_second_one_does_not_wait(tiny, interrupt, weights):
    before = signal.getsignal(signal.SIGINT)
    once = interrupt("on_train_batch_start", 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    stopped = tiny("once", callbacks=[once], save_last_every=100)
    assert not stopped.finished
    assert weights(stopped.path)["global_step"] == 2

    def press_twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit):
        tiny("twice", callbacks=[interrupt("on_train_batch_start", 3, press_twice)], save_last_every=100)
    assert signal.getsignal(signal.SIGINT) == before


def test_sigterm_before_the_first_step_loses_nothing(tiny, undisturbed, interrupt, weights):
    terminate = interrupt("on_train_start", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopped = tiny(callbacks=[terminate], ema=0.9)
    assert not stopped.finished
    equal(weights(tiny(resume=True, ema=0.9).path), weights(undisturbed.path))


def test_slurm_requeues_and_then_goes_on_by_itself(
    tiny, undisturbed, interrupt, weights, monkeypatch, tmp_path
):
    called = tmp_path / "called"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {called}\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    warn = interrupt("on_train_batch_start", 5, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    assert not tiny(callbacks=[warn], ema=0.9).finished
    assert called.read_text() == "requeue 1234\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    result = tiny(ema=0.9)  # the very same command
    assert result.finished
    equal(weights(result.path), weights(undisturbed.path))


def test_a_job_that_slurm_will_not_requeue_says_so(tiny, interrupt, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    warn = interrupt("on_train_batch_start", 5, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(UserError, match="SLURM job 7_3 is saved but could not be requeued"):
        tiny(callbacks=[warn])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"backbone_args": {"depth": 2}},
            r"backbone_args=\{'depth': 2\}: it was started with \{'depth': 1\}",
        ),
        ({"patch_size": 16}, "patch_size=16"),
        ({"seed": 1}, "seed=1"),
        ({"accumulate": 1}, "accumulate=1"),
        ({"epochs": 4}, "epochs=4"),
        (
            {"mask": {"class_path": "dppmask.masks.dpp.DPPMask"}},
            r"mask=DPPMask\(.*started with RandomMask\(\)",
        ),
    ],
)
def test_resume_refuses_to_train_something_else(tiny, interrupt, change, message):
    with pytest.raises(PowerCut):
        tiny(epochs=1, callbacks=[interrupt("on_train_start", 1, cut)])
    with pytest.raises(UserError, match=message) as error:
        tiny(**{"epochs": 1, "resume": True} | change)
    assert "\n" not in str(error.value)


def test_resume_may_change_the_speed(tiny):
    tiny(epochs=1)
    assert tiny(epochs=1, resume=True, num_workers=2, save_every=1, log_every=1).finished


def test_truncated_checkpoint_stops_a_resume_in_one_line(tiny):
    run = tiny(epochs=2, save_every=1).path
    last = run / "checkpoints" / "last.ckpt"
    os.truncate(last, last.stat().st_size // 2)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged.*epoch_0002\.ckpt"):
        tiny(epochs=2, save_every=1, resume=True)
    (run / "checkpoints" / "epoch_0001.ckpt").replace(last)  # what the message says
    assert tiny(epochs=2, save_every=1, resume=True).finished


def test_half_written_files_of_a_killed_process_go(tiny):
    run = tiny(epochs=1).path
    leftover = run / "checkpoints" / ".writing-99-last.ckpt"
    leftover.write_text("half")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    tiny(epochs=1, resume=True)
    assert not leftover.exists()
