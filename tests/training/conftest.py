"""The tiny training, and what it left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import TINY, Interrupt

from dppmask.training.run import RunResult, pretrain


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
