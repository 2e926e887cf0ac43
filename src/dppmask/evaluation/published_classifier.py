"""Classifiers as timm publishes them, with their own heads; nothing is downloaded."""

import timm
from torch import nn

from dppmask.errors import UserError, nearest, short_reason
from dppmask.models.weights import published, read_tensors


def load_published(name: str, weights: str | None = None) -> nn.Module:
    """A timm network with its classifier, on the CPU and in evaluation mode.

    Args:
        name: A timm name: with a tag ("resnet50.a1_in1k"), whose weights lie in the local Hugging Face
            cache, or any architecture for a file of weights.
        weights: A file of weights with timm's names (``.pth`` or ``.safetensors``).

    Raises:
        UserError: If timm does not know the name, or the weights are not there or do not fit.
    """
    if not timm.is_model(name):
        raise UserError(
            f"classifier {name} is neither a folder with a classifier nor a timm name; "
            f"{nearest(name, timm.list_models())}"
        )
    if weights is not None:
        tensors = read_tensors(weights)
        tensors = tensors.get("state_dict", tensors.get("model", tensors))
        network = timm.create_model(name)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise UserError(f"the weights {weights} do not fit {name} ({short_reason(error)})") from None
        return network.eval()
    return timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": published(name)[1]}
    ).eval()
