"""Run by test_finetune.py as each of two ranks: one evaluation by fine-tuning, in a folder both see."""

import json
import sys
from pathlib import Path

import torch
from coloured_images import Coloured, tiny_encoder

from dppmask.evaluation import ranks
from dppmask.evaluation.finetune import Finetune
from dppmask.evaluation.run import evaluate


def record(out: Path, *, devices: int) -> dict:
    """11 held-out images divide by neither 2 ranks nor batches of 4."""
    protocol = Finetune(
        epochs=2, warmup_epochs=1, batch_size=8, micro_batch=2, base_lr=0.02, ema=0.9, out=str(out)
    )
    data = Coloured(train_size=24, val_size=11)
    return evaluate(tiny_encoder(), protocol, data, seed=3, device="cpu", devices=devices, batch_size=4)


def main(folder: Path) -> None:
    found = record(folder / "two", devices=2)
    (folder / f"rank-{ranks.rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
