"""A training small enough to be done dozens of times, and a way to disturb it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch import Callback

from dppmask.data.scenes import Scenes
from dppmask.models.mae import MAE

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


class Interrupt(Callback):
    """Calls ``action`` the ``count``-th time that Lightning calls ``hook``."""

    def __init__(self, hook: str, count: int, action: Callable[[], Any]) -> None:
        self.calls = 0

        def called(*_: Any, **__: Any) -> None:
            self.calls += 1
            if self.calls == count:
                action()

        setattr(self, hook, called)
