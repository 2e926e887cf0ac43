"""Run by test_ibot_run.py as each of two ranks: DDP with both reductions, stopped and resumed, and FSDP2."""

import sys
from functools import partial
from pathlib import Path

from ibot_runs import SHORT, TINY_IBOT, one_batch
from tiny_run import Interrupt

from dppmask.masks import DPPMask
from dppmask.training.run import pretrain


class PowerCut(BaseException):
    """What no code of the library catches."""


def cut() -> None:
    raise PowerCut


def main(folder: Path) -> None:
    for reduction in ("diluted", "masked"):
        method = partial(SHORT, reduction=reduction)
        pretrain(run=folder / reduction, **one_batch(method=method, batch_size=4, devices=2, strategy="ddp"))
    ranks = TINY_IBOT | {"devices": 2, "accumulate": 1, "mask": DPPMask(source="teacher"), "strategy": "ddp"}
    ranks |= {"epochs": 2}
    pretrain(run=folder / "undisturbed", **ranks)
    options = ranks | {"run": folder / "resumed", "save_last_every": 1}
    try:
        pretrain(**options, callbacks=[Interrupt("on_train_batch_start", 5, cut)])
    except PowerCut:
        assert pretrain(**options, resume=True).finished
    pretrain(run=folder / "fsdp2", **one_batch(batch_size=4, devices=2, strategy="fsdp2", epochs=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
