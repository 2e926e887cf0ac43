"""Names and sizes of published weights: MAE as its authors released it, and plain ViTs of the same names.

Such a file carries no configuration, so every size but the number of heads is read off the tensors.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dppmask.errors import UserError
from dppmask.models.positions import sincos_table

# The number of heads cannot be read off a tensor; these are the published models, by width.
PUBLISHED_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}

# Official prefix → ours. Everything else belongs to the encoder, whose names are timm's.
_DECODER_NAMES = {
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.position",
    "decoder_embed.": "decoder.embed.",
    "decoder_blocks.": "decoder.blocks.",
    "decoder_norm.": "decoder.norm.",
    "decoder_pred.": "decoder.head.",
}
_DECODER_PREFIXES = tuple(_DECODER_NAMES)
_CLASSIFIER = "head."


def method_state(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names to ours: ``encoder.backbone.…`` and, where the file has a decoder, ``decoder.…``.

    A classifier is left out.
    """
    return {_rename(name): value for name, value in state_dict.items() if not name.startswith(_CLASSIFIER)}


def encoder_arguments(state_dict: Mapping[str, Tensor], *, num_heads: int | None = None) -> dict[str, Any]:
    """The arguments of an ``Encoder`` that fits published weights.

    Args:
        state_dict: Tensors by published name.
        num_heads: Attention heads; None = as in the published model of the same width.

    Raises:
        UserError: If tensors are missing, the position table is not that of a square grid and a class token,
            or no published model has this width and ``num_heads`` is not given.
    """
    width, in_chans, patch_size, _ = _tensor(state_dict, "patch_embed.proj.weight").shape
    table = _tensor(state_dict, "pos_embed")
    side = math.isqrt(table.shape[1] - 1)
    if side**2 + 1 != table.shape[1]:
        raise UserError(
            f"pos_embed must be that of a square grid and a class token, got {table.shape[1]} rows"
        )
    if num_heads is None and width not in PUBLISHED_HEADS:
        raise UserError(f"num_heads must be given for these weights: no published model has width {width}")
    fixed = width % 4 == 0 and torch.allclose(table.float(), sincos_table((side, side), width), atol=1e-4)
    return {
        "backbone": "vit_base_patch16_224",
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "in_chans": in_chans,
        "position": "sincos" if fixed else "learned",
        "backbone_args": {
            "embed_dim": width,
            "depth": _depth(state_dict, "blocks"),
            "num_heads": PUBLISHED_HEADS[width] if num_heads is None else num_heads,
            "mlp_ratio": _mlp_ratio(state_dict, "blocks"),
        },
    }


def decoder_arguments(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """The decoder's arguments of an ``MAE`` that fits official weights, all but the number of heads.

    Raises:
        UserError: If the weights are those of an encoder alone.
    """
    if not any(name.startswith(_DECODER_PREFIXES) for name in state_dict):
        raise UserError(
            "these weights hold an encoder alone (mask_token and every decoder_* tensor are missing), "
            "not a whole MAE; use load_encoder, or the release with the decoder"
        )
    return {
        "decoder_embed_dim": _tensor(state_dict, "decoder_embed.weight").shape[0],
        "decoder_depth": _depth(state_dict, "decoder_blocks"),
        "decoder_mlp_ratio": _mlp_ratio(state_dict, "decoder_blocks"),
    }


def _rename(name: str) -> str:
    for official, ours in _DECODER_NAMES.items():
        if name.startswith(official):
            return ours + name.removeprefix(official)
    return f"encoder.backbone.{name}"


def _tensor(state_dict: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state_dict:
        raise UserError(f"these are no MAE or plain ViT weights: the tensor {name} is missing")
    return state_dict[name]


def _depth(state_dict: Mapping[str, Tensor], blocks: str) -> int:
    return len({match[1] for name in state_dict if (match := re.match(rf"{blocks}\.(\d+)\.", name))})


def _mlp_ratio(state_dict: Mapping[str, Tensor], blocks: str) -> float:
    hidden, width = _tensor(state_dict, f"{blocks}.0.mlp.fc1.weight").shape
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
