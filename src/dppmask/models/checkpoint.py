"""Whole methods, first weights and exports: official MAE files, runs, folders that timm alone loads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm

from dppmask.errors import UserError, nearest
from dppmask.files import replace_file, write_json
from dppmask.models import official
from dppmask.models.base import MaskedImageModel
from dppmask.models.build import build_model
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.models.weights import (
    below,
    difference_from,
    encoder_state,
    is_architecture,
    load_encoder,
    load_into,
    read_weights,
    run_config,
    run_state,
)
from dppmask.rng import seeded

__all__ = ["init_weights", "load_encoder", "load_model", "load_official_mae", "save_encoder"]


def load_official_mae(
    state_dict: Mapping[str, Any], *, num_heads: int, decoder_num_heads: int, norm_pix_loss: bool
) -> MAE:
    """The MAE of a state dict with the official names; all other sizes are read off the tensors.

    Args:
        state_dict: Tensors by official name, or a checkpoint that holds them under "model".
        num_heads: Attention heads of the encoder.
        decoder_num_heads: Attention heads of the decoder; 16 in every published model.
        norm_pix_loss: Whether it was trained on normalised pixels.

    Raises:
        UserError: If the weights are those of an encoder alone, or tensors are missing, unknown or misshapen.
    """
    tensors = state_dict.get("model", state_dict)
    decoder = official.decoder_arguments(tensors)
    with seeded(0):
        encoder = Encoder(**official.encoder_arguments(tensors, num_heads=num_heads))
        model = MAE(encoder, decoder_num_heads=decoder_num_heads, norm_pix_loss=norm_pix_loss, **decoder)
    load_into(model, official.method_state(tensors), "the official weights")
    return model


def load_model(run: str | Path) -> MaskedImageModel:
    """The whole method of a run: architecture from ``config.yaml``, weights from ``checkpoints/last.ckpt``.

    Of a run with an EMA these are the averaged weights, as everywhere that a run is read.

    Raises:
        UserError: If either file is missing or unreadable, or they do not belong together.
    """
    with seeded(0):
        model = build_model(run_config(Path(run)))
    load_into(model, run_state(Path(run)), str(run))
    return model


def init_weights(model: MaskedImageModel, source: str | Path, *, num_heads: int | None = None) -> list[str]:
    """Start ``model`` from other weights: its encoder, and each part that the source has in equal shape.

    Args:
        model: Changed in place. Another image size is fine: the position table is resized bicubically.
        source: As for :func:`load_encoder`, but a run always gives its last checkpoint, and a bare timm name,
            which has no weights, is refused.
        num_heads: Attention heads, for files of a width that no published model has.

    Returns:
        The parts that were loaded, "encoder" first; the others keep their fresh weights.

    Raises:
        UserError: If the source cannot be read, or its encoder is of another architecture.
    """
    if not Path(source).exists() and is_architecture(str(source)):
        tags = timm.list_pretrained(f"{source}.*") or ["none are published"]
        raise UserError(
            f"init_from {source} names an architecture without weights; {nearest(str(source), tags)}"
        )
    weights = read_weights(source, num_heads=num_heads)
    encoder = model.encoder
    if not isinstance(encoder, Encoder):
        raise TypeError(f"init_weights needs a method with an Encoder, got {type(encoder).__name__}")
    load_into(encoder, encoder_state(weights, encoder), str(source))
    loaded = ["encoder"]
    for name, child in model.named_children():
        state = below(weights.state, name)
        if name != "encoder" and state and not difference_from(child, state):
            child.load_state_dict(state)
            loaded.append(name)
    return loaded


def save_encoder(encoder: Encoder, folder: str | Path) -> None:
    """Write ``model.safetensors`` and ``config.json``, which timm alone loads.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` is the same network in one line: its
    ``forward_features`` returns what :meth:`Encoder.encode` does, the prefix tokens first.

    Raises:
        UserError: If the disk is full; what the folder held before is intact.
    """
    folder = Path(folder)
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.backbone.state_dict().items()}
    with replace_file(folder / "model.safetensors") as handle:
        handle.write(safetensors.torch.save(state, metadata={"format": "pt"}))
    config = {
        "architecture": encoder.backbone_name,
        "num_classes": 0,
        "num_features": encoder.embed_dim,
        "model_args": encoder.timm_arguments(),
        "pretrained_cfg": {
            "input_size": [encoder.in_chans, *encoder.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "mean": encoder.mean,
            "std": encoder.std,
            "num_classes": 0,
            "pool_size": None,
            # timm sums this layer's weights to other channel counts, and took them for RGB whatever they are
            "first_conv": "patch_embed.proj" if encoder.in_chans == 3 else None,
            "classifier": "head",
        },
        "dppmask": encoder.arguments(),
    }
    write_json(folder / "config.json", config)  # last: who finds it finds the weights too
