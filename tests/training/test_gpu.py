"""Trainings on a GPU: mixed precision with its optimiser steps, and resumed runs that repeat themselves."""

import os
import signal

import pytest
import torch

from dppmask.masks import DPPMask

pytestmark = pytest.mark.gpu

ON_GPU = {"accelerator": "gpu", "mask": DPPMask()}


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns_as_float32_does(tiny, lines, precision):
    exact, mixed = tiny("exact", **ON_GPU), tiny("mixed", precision=precision, **ON_GPU)
    assert mixed.finished
    losses = [[line["loss"] for line in lines(run.path)] for run in (exact, mixed)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_resumed_run_repeats_itself_with_deterministic_kernels(tiny, interrupt, weights, lines, precision):
    options = {"deterministic": True, "precision": precision, "ema": 0.9, **ON_GPU}
    undisturbed = tiny("undisturbed", **options)
    stop = interrupt("on_train_batch_end", 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert not tiny(callbacks=[stop], **options).finished
    result = tiny(resume=True, **options)
    assert result.finished
    torch.testing.assert_close(weights(result.path), weights(undisturbed.path), rtol=0, atol=0)
    assert lines(result.path) == lines(undisturbed.path)
