"""Small iBOT trainings that several tests and the processes of two ranks share."""

from functools import partial
from typing import Any

import torch
from tiny_run import TINY
from torch import Tensor

from dppmask.masks import Mask, MaskContext, MaskStrategy
from dppmask.masks.features import patch_pixels
from dppmask.models.ibot import IBOT

HEAD = {"out_dim": 16, "head_hidden_dim": 16, "head_bottleneck_dim": 8}

SHORT = partial(IBOT, **HEAD, num_local_crops=2, local_size=16, warmup_teacher_temp_epochs=1)

TINY_IBOT: dict[str, Any] = TINY | {
    "method": partial(SHORT, warmup_teacher_temp_epochs=2),
    "position": "learned",
    "backbone_args": {"depth": 1, "drop_path_rate": 0.2},
    "mask_ratio": (0.1, 0.5),
    "mask_probability": 0.5,
    "weight_decay_end": 0.4,
    "clip_grad": 3.0,
    "betas": (0.9, 0.999),
}


class ByContent(MaskStrategy):
    """Hides the brighter patches of some images: ragged, and the same however images are batched."""

    needs = frozenset({"images"})

    def forward(self, context: MaskContext, num_masked: int | Tensor, *, generator: torch.Generator) -> Mask:
        brightness = patch_pixels(context.images, context.grid).mean(-1)  # [B, N]
        mean = brightness.mean(1, keepdim=True)
        return Mask.from_bool((brightness > mean) & (mean > -0.2))


def one_batch(**changes: Any) -> dict[str, Any]:
    """Whatever the number of ranks: 8 images a step, nothing random but the crops.

    Without biases of the keys, which the loss does not depend on: AdamW would turn the rounding errors that
    are their gradients into steps of full length.
    """
    options = {
        "method": SHORT,
        "mask": ByContent(),
        "backbone_args": {"depth": 1, "qkv_bias": False},
        "base_lr": 0.01,
        "log_every": 1,
        "accumulate": 1,
        "epochs": 2,
    }
    return TINY_IBOT | options | changes
