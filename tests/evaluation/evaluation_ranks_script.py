"""Run by test_evaluation_ranks.py as each of two ranks: every protocol that divides its images."""

import json
import sys
from pathlib import Path

import torch
from coloured_images import Coloured, tiny_encoder

from dppmask.data.scenes import Scenes
from dppmask.evaluation import ranks
from dppmask.evaluation.alignment import Alignment
from dppmask.evaluation.backgrounds import Backgrounds
from dppmask.evaluation.clustering import Clustering
from dppmask.evaluation.knn import KNN
from dppmask.evaluation.linear import Linear
from dppmask.evaluation.linear_fast import LinearFast
from dppmask.evaluation.mask_statistics import MaskStatistics
from dppmask.evaluation.multilabel import MultiLabel
from dppmask.evaluation.run import evaluate
from dppmask.masks import RandomMask

PROTOCOLS = [
    KNN(k=[3], baselines=["random_encoder"]),
    LinearFast(baselines=[]),
    Linear(epochs=2, warmup_epochs=1, batch_size=8, baselines=[]),
    Clustering(restarts=1, baselines=[]),
]
OF_SCENES = [
    LinearFast(baselines=[]),
    MultiLabel(baselines=[]),
    Alignment([RandomMask()], mask_ratios=[0.5], num_masks=2, num_images=5, num_clouds=0),
    MaskStatistics(masks=[RandomMask()], num_images=5),
]


def records(devices: int) -> list[dict]:
    """What every protocol finds; 21 and 11 images divide by neither 2 ranks nor batches of 4."""
    data = Coloured(train_size=21, val_size=11)
    options = {"device": "cpu", "devices": devices, "batch_size": 4, "seed": 3}
    found = [evaluate(tiny_encoder(), protocol, data, **options) for protocol in PROTOCOLS]
    several = Scenes(size=32, train_size=9, val_size=5)
    found += [evaluate(tiny_encoder(), protocol, several, **options) for protocol in OF_SCENES]
    one_object = Scenes(size=32, task="single", train_size=24, val_size=9)
    return [*found, evaluate(tiny_encoder(), Backgrounds(baselines=[]), one_object, **options)]


def check_gathering() -> None:
    """Rows of unequal number, of every kind that features have."""
    mine = ranks.rank() + 1
    assert ranks.joined_rows(torch.full((mine, 2), mine)).tolist() == [[1, 1], [2, 2], [2, 2]]
    assert ranks.joined_rows(torch.tensor([[True]]) if mine == 2 else None).tolist() == [[True]]
    assert ranks.joined_rows(None) is None
    assert not ranks.agreed(mine == 1)
    assert ranks.agreed(True)


def main(folder: Path) -> None:
    found = records(devices=2)
    (folder / f"rank-{ranks.rank()}.json").write_text(json.dumps(found))
    check_gathering()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
