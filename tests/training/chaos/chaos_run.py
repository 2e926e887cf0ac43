"""What test_kill.py starts in a process of its own, and kills."""

import multiprocessing
from functools import partial
from pathlib import Path

import torch

from dppmask.data.scenes import Scenes
from dppmask.masks import DPPMask
from dppmask.models.mae import MAE
from dppmask.training.run import pretrain

IMAGES_PER_STEP = 8


def train(run: Path, num_workers: int, epochs: int) -> None:
    """Start or go on: 4 optimiser steps an epoch, each saved, each of 2 micro-batches of 4 images."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers: no imports again
    pretrain(
        run=run,
        resume=True,
        data=Scenes(size=32, train_size=32, val_size=8),
        method=partial(MAE, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2),
        mask=DPPMask(),
        backbone="test_vit",
        backbone_args={"depth": 1},
        image_size=32,
        patch_size=8,
        epochs=epochs,
        batch_size=4,
        accumulate=2,
        base_lr=0.1,
        num_workers=num_workers,
        ema=0.9,
        log_every=1,
        save_last_every=1,
        save_every=1,
        accelerator="cpu",
    )
