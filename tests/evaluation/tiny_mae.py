"""A run of MAE that takes a second: 32-pixel scenes on a grid of 4 × 4 patches."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dppmask.data.scenes import Scenes
from dppmask.masks import DPPMask
from dppmask.models.mae import MAE
from dppmask.training.run import pretrain

DATA = Scenes(size=32, train_size=8, val_size=6)
GRID = (4, 4)


def tiny_mae(folder: Path, *, norm_pix_loss: bool = False) -> Path:
    """Two steps of training."""
    method = partial(
        MAE, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2, norm_pix_loss=norm_pix_loss
    )
    tiny = {"backbone": "test_vit", "image_size": 32, "patch_size": 8, "epochs": 1, "batch_size": 4}
    pretrain(run=folder, data=DATA, method=method, mask=DPPMask(), num_workers=0, accelerator="cpu", **tiny)
    return folder


def normalised(model: MAE) -> Tensor:
    """The validation images as the model sees them, ``[6, 3, 32, 32]``."""
    part = DATA.split("val")
    images = torch.stack([part[index].image for index in range(len(part))]).float().div(255)
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.encoder.mean, model.encoder.std))
    return (images - mean) / std


def predicted(model: MAE, images: Tensor, mask) -> Tensor:
    """Pixels in [0, 1] of a model without normalised patches, patch by patch, ``[B, 3, 32, 32]``."""
    with torch.no_grad():
        patches = model(model.context(images), mask).prediction.reshape(len(images), 4, 4, 8, 8, 3)
    pixels = torch.zeros(len(images), 3, 32, 32)
    for row in range(4):
        for column in range(4):
            place = pixels[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            place.copy_(patches[:, row, column].permute(0, 3, 1, 2))
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.encoder.mean, model.encoder.std))
    return (pixels * std + mean).clamp(0, 1)


def hidden_pixels(masked: Tensor) -> Tensor:
    """bool ``[16]`` → bool ``[32, 32]``."""
    return torch.kron(masked.reshape(4, 4).int(), torch.ones(8, 8, dtype=torch.int)).bool()
