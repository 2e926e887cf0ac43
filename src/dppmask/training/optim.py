"""AdamW and gradient clipping, as MAE and iBOT use them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

_EPSILON = 1e-6  # added to a norm before dividing by it
_TOKENS = ("cls_token", "reg_token", "pos_embed")  # ends of names


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


def adamw(
    model: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.95)
) -> torch.optim.AdamW:
    """AdamW on :func:`parameter_groups`, by default with MAE's momenta."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=betas)


def layer_wise_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    layer_of: Callable[[str], int],
    *,
    last_layer: int,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Trainable parameters by layer, each with its share of the learning rate, the deepest layer first.

    The share of layer i, which :func:`set_rates` reads as ``lr_scale``, is ``layer_decay^(last_layer - i)``.
    1-D parameters, tokens and position tables do not decay.

    Args:
        parameters: By name; the order within a group is theirs.
        layer_of: The layer of a name, from 0 to ``last_layer``.
        last_layer: The layer of the head, which has the full learning rate.
        layer_decay: In (0, 1]; 1 = the same rate everywhere.
        weight_decay: Of matrices.

    Source: facebookresearch/mae, util/lr_decay.py, after BEiT (Bao et al., 2022).
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        layer = layer_of(name)
        free = parameter.ndim <= 1 or name.endswith(_TOKENS)
        group = groups.setdefault(
            (-layer, free),
            {
                "params": [],
                "weight_decay": 0.0 if free else weight_decay,
                "lr_scale": layer_decay ** (last_layer - layer),
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def set_rates(optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float) -> None:
    """Change the learning rate, times the group's ``lr_scale``, and the weight decay of what decays."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        if group["weight_decay"] > 0:
            group["weight_decay"] = weight_decay


@torch.no_grad()
def clip_each_gradient(model: nn.Module, max_norm: float) -> None:
    """Shorten the gradient of each parameter tensor, for itself, to at most ``max_norm``.

    Source: bytedance/ibot, utils.py:clip_gradients, unlike the joint norm that torch clips.
    """
    for parameter in model.parameters():
        if parameter.grad is not None:
            norm = torch.linalg.vector_norm(parameter.grad)
            parameter.grad.mul_((max_norm / (norm + _EPSILON)).clamp(max=1.0))
