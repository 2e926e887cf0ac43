"""Every evaluation on the embedded default: pre-train once, score by all protocols, say what clears its baseline.

``python -m dppmask.chain --scale full|smoke --out FOLDER`` runs ``dppmask`` commands, each shown as one would
type it. Called again on the same folder it goes on: a finished pre-training is not repeated, and features,
classifiers and records that are there are read.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dppmask.evaluation.run import RESULTS
from dppmask.figures.table import CLEARLY, Cell, Column, Measured, Table
from dppmask.files import write_json
from dppmask.training.environment import describe_environment
from dppmask.typed import as_typed, record_of, run_command

RECIPE, MASK = "mae_scenes_tiny", "masks/dpp"
TRIVIAL = ("chance", "all_negative", "background_only", "raw_pixels", "random_encoder")


@dataclass(frozen=True)
class Scale:
    """How much of everything; fixed before anything was scored.

    Attributes:
        scenes: Images to pre-train on.
        epochs: Passes over them.
        labelled: Images that classifiers are fitted to.
        held_out: Images that are scored.
        training: Epochs of the protocols that train in epochs.
    """

    scenes: int
    epochs: int
    labelled: int
    held_out: int
    training: int


SCALES = {
    "full": Scale(scenes=2048, epochs=16, labelled=2048, held_out=1024, training=20),
    "smoke": Scale(scenes=128, epochs=1, labelled=128, held_out=64, training=2),
}


@dataclass(frozen=True)
class Step:
    """One evaluation.

    Attributes:
        title: What it is called in the table.
        task: Which Scenes: "single" or "multi".
        options: Of ``dppmask evaluate``, without the run and the data.
        metrics: Title of a row → name of a metric of the record.
    """

    title: str
    task: str
    options: tuple[str, ...]
    metrics: dict[str, str]


def steps(scale: Scale) -> list[Step]:
    """All protocols, from the cheapest to the dearest."""
    mean = ("--protocol.pooling", "mean")
    sgd = ("--protocol.epochs", str(scale.training), "--protocol.batch_size", str(min(64, scale.labelled // 2)))
    return [
        Step("k-NN", "single", ("--protocol", "KNN", *mean), {"top-1": "knn_top1_k20"}),
        Step("k-NN, 24 labels", "multi", ("--protocol", "KNN", *mean), {"mAP": "knn_mAP_k20"}),
        Step("linear, fitted", "single", ("--protocol", "LinearFast", *mean), {"top-1": "top1"}),
        Step(
            "linear, MAE's",
            "single",
            ("--protocol", "Linear", *mean, *sgd, "--protocol.warmup_epochs", "1", "--protocol.base_lr", "4"),
            {"top-1": "top1"},
        ),
        Step("linear, iBOT's", "single", ("--protocol", "LinearSweep", *mean, *sgd), {"top-1": "top1"}),
        Step(
            "clusters",
            "single",
            ("--protocol", "Clustering", *mean),
            {"NMI": "kmeans_nmi", "ACC": "kmeans_acc", "ARI": "kmeans_ari"},
        ),
    ]
