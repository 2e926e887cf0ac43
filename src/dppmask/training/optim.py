"""AdamW as MAE uses it."""

from typing import Any

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay, biases and all other 1-D parameters do not.

    Class and mask tokens have three dimensions and decay. A fixed position embedding is a buffer or needs no
    gradient, so it is in no group; a learned one decays.

    Args:
        model: Whose parameters; the order within a group is the model's.
        weight_decay: Decay of the first group.

    Source: facebookresearch/mae, main_pretrain.py (timm's rule of that time).
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (free if parameter.ndim <= 1 or name.endswith(".bias") else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with MAE's momenta (0.9, 0.95) on :func:`parameter_groups`."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=(0.9, 0.95))
