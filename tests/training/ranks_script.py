"""Run by test_ranks.py as each of two ranks: DDP, DDP stopped and resumed, FSDP2 likewise."""

import os
import signal
import sys
from pathlib import Path

from tiny_run import TINY, Interrupt

from dppmask.masks import DPPMask
from dppmask.training.run import pretrain

TWO_RANKS = TINY | {"devices": 2, "accumulate": 1, "mask": DPPMask()}


def terminated(rank: int) -> list[Interrupt]:
    """One rank alone is told to stop, within step 5."""
    mine = int(os.environ["RANK"]) == rank
    return [Interrupt("on_train_batch_start", 5, lambda: mine and os.kill(os.getpid(), signal.SIGTERM))]


def main(folder: Path) -> None:
    pretrain(run=folder / "ddp", strategy="ddp", **TWO_RANKS)
    for strategy in ("ddp", "fsdp2"):
        options = TWO_RANKS | {
            "run": folder / f"stopped-{strategy}",
            "strategy": strategy,
            "save_last_every": 99,
        }
        stopped = pretrain(**options, callbacks=terminated(rank=1))
        assert not stopped.finished
        assert pretrain(**options, resume=True).finished


if __name__ == "__main__":
    main(Path(sys.argv[1]))
