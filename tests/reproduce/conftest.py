"""Experiments and scales small enough to be run in a test."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dppmask.reproduce import pool
from dppmask.reproduce.experiments import Experiment, experiment_of
from dppmask.reproduce.request import Request
from dppmask.reproduce.scales import Scale

SCENES = {
    "class_path": "dppmask.data.scenes.Scenes",
    "init_args": {"size": 32, "train_size": 16, "val_size": 8, "task": "single"},
}
PRETRAIN = {
    "config": "methods/mae_scenes_tiny",
    "data": SCENES,
    "backbone": "test_vit",
    "backbone_args": {"depth": 1},
    "image_size": 32,
    "epochs": 2,
    "batch_size": 4,
    "base_lr": 0.1,
    "method": {"init_args": {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}},
}
EVALUATE = {
    "knn": {
        "protocol": {
            "class_path": "dppmask.evaluation.knn.KNN",
            "init_args": {"k": [3], "pooling": "mean", "baselines": ["chance"]},
        },
        "data": SCENES,
    }
}
EXPERIMENT = yaml.safe_load(
    """
title: Two rows
reference: Table 0
setting: None.
method: mae
baseline: random
columns:
  loss: {title: loss, evaluation: training, metric: loss, percent: false, better: lower, digits: 3}
  knn: {title: "k-NN, %", evaluation: knn, metric: knn_top1_k3, better: higher}
  absent: {title: "not here, %", evaluation: finetune, metric: top1}
rows:
  random: {title: random masks, pretrain: {config: masks/random}, paper: {knn: 40.0, absent: 1.0}}
  dpp: {title: DPP masks, pretrain: {config: masks/dpp}, paper: {knn: 42.5}}
"""
)


@pytest.fixture
def content() -> dict[str, Any]:
    """The content of an experiment's file, to be changed."""
    return copy.deepcopy(EXPERIMENT)


@pytest.fixture
def experiment(content) -> Experiment:
    return experiment_of("table0", content, where="table0.yaml")


@pytest.fixture
def scale() -> Scale:
    return Scale(
        "mini",
        "For tests.",
        (0, 1),
        {"mae": Request.of(copy.deepcopy(PRETRAIN))},
        {name: Request.of(copy.deepcopy(entry)) for name, entry in EVALUATE.items()},
    )


@pytest.fixture
def own_experiment(content, tmp_path, monkeypatch):
    """The path of an experiment of one's own, and the file in which its trouble is written."""
    content["columns"] = {"loss": content["columns"]["loss"]}
    for row in content["rows"].values():
        del row["paper"]
    path, trouble = tmp_path / "mine.yaml", tmp_path / "trouble.json"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    trouble.write_text("{}")
    fake = str(Path(__file__).with_name("fake_worker.py"))
    monkeypatch.setattr(pool, "COMMAND", [sys.executable, fake, str(trouble)])
    return path, trouble
