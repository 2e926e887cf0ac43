"""A training small enough to be done dozens of times."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from dppmask.data.scenes import Scenes
from dppmask.models.mae import MAE
from dppmask.training.run import RunResult, pretrain

TINY: dict[str, Any] = {
    "data": Scenes(size=32, train_size=32, val_size=8),
    "method": partial(MAE, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2),
    "backbone": "test_vit",
    "backbone_args": {"depth": 1},
    "image_size": 32,
    "patch_size": 8,
    "epochs": 3,  # of 4 optimiser steps, each of 2 micro-batches of 4 images
    "batch_size": 4,
    "accumulate": 2,
    "base_lr": 0.1,
    "num_workers": 0,
    "log_every": 3,
    "save_last_every": 3,
    "accelerator": "cpu",
}


@pytest.fixture
def tiny(tmp_path) -> Callable[..., RunResult]:
    """``tiny(name="run", **changes)``: pretrain for 12 optimiser steps, 24 micro-batches."""

    def train(name: str = "run", **changes: Any) -> RunResult:
        return pretrain(run=tmp_path / name, **TINY | changes)

    return train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> RunResult:
    """The tiny run with an EMA."""
    return pretrain(run=tmp_path_factory.mktemp("undisturbed") / "run", ema=0.9, **TINY)


class Interrupt(Callback):
    """Calls ``action`` the ``count``-th time that Lightning calls ``hook``."""

    def __init__(self, hook: str, count: int, action: Callable[[], Any]) -> None:
        self.calls = 0

        def called(*_: Any, **__: Any) -> None:
            self.calls += 1
            if self.calls == count:
                action()

        setattr(self, hook, called)


@pytest.fixture
def interrupt() -> type[Interrupt]:
    return Interrupt


@pytest.fixture
def weights() -> Callable[[Path], dict[str, Any]]:
    """Everything in a run's ``last.ckpt`` but the loops' counters of how it came there."""

    def load(run: Path) -> dict[str, Any]:
        content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        return {name: content[name] for name in ("state_dict", "optimizer_states", "global_step", "epoch")}

    return load


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of ``metrics.jsonl`` without the speed."""

    def load(run: Path) -> list[dict[str, Any]]:
        text = (run / "metrics.jsonl").read_text()
        parsed = [json.loads(line) for line in text.splitlines()]
        return [{k: v for k, v in line.items() if k != "images_per_second"} for line in parsed]

    return load
