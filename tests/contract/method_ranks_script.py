"""Run by test_methods.py as each of two ranks: every strategy with every method."""

import sys
from pathlib import Path

from method_runs import PAIRS, name_of, options_of

from dppmask.training.run import pretrain


def main(folder: Path) -> None:
    for method, strategy in PAIRS:
        two_ranks = {"batch_size": 1, "devices": 2, "strategy": "ddp", "epochs": 1}
        pretrain(run=folder / name_of(method, strategy), **options_of(method, strategy) | two_ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
