"""Weights in and out: official MAE files, timm names, runs, and encoder folders that timm alone loads.

Nothing is downloaded, and files load with ``weights_only=True``: none of their content is executed.
"""

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import yaml
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from dppmask.errors import UserError, nearest, short_reason
from dppmask.files import replace_file, write_json
from dppmask.models import official
from dppmask.models.base import MaskedImageModel
from dppmask.models.build import build_model, encoder_arguments
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.models.positions import resize_table
from dppmask.rng import seeded

_logger = logging.getLogger(__name__)

_TABLE = "encoder.backbone.pos_embed"

AVERAGE = "Average"  # under which name a checkpoint keeps the averaged weights


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights read from somewhere.

    Attributes:
        arguments: Of the :class:`~dppmask.models.encoder.Encoder` they belong to.
        state: Tensors by name as in a method: ``encoder.backbone.…``, ``decoder.…``.
        statistics: Mean and standard deviation of the images, where they are known.
    """

    arguments: dict[str, Any]
    state: dict[str, Tensor]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


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
    _load(model, official.method_state(tensors), "the official weights")
    return model


def load_encoder(
    source: str | Path, *, image_size: int | tuple[int, int] | None = None, num_heads: int | None = None
) -> Encoder:
    """The encoder of a run, a folder, a file of weights, or a timm name.

    Args:
        source: A run folder (its exported ``encoder/``, or the last checkpoint while there is none); a folder
            written by :func:`save_encoder`; a file with official MAE or plain timm ViT names (``.pth`` or
            ``.safetensors``); a timm name with a tag (``vit_base_patch16_224.mae``: the published weights, if
            they are in the local Hugging Face cache); or a bare timm name (an untrained encoder).
        image_size: Size to encode, if not the one trained on; the position table is resized bicubically.
        num_heads: Attention heads, for files of a width that no published model has.

    Raises:
        UserError: If there is no such thing, or it cannot be read, or it does not fit.
    """
    path = Path(source)
    if not path.exists() and _is_architecture(str(source)):
        _logger.warning("%s is an architecture without weights: this encoder is untrained", source)
        with seeded(0):
            return Encoder(str(source), image_size=image_size or 224)
    exported = path / "encoder"
    weights = read_weights(exported if (exported / "config.json").is_file() else source, num_heads=num_heads)
    with seeded(0):
        encoder = Encoder(**weights.arguments | ({} if image_size is None else {"image_size": image_size}))
    _load(encoder, _encoder_state(weights, encoder), str(source))
    if weights.statistics is not None:
        encoder.mean, encoder.std = weights.statistics
    return encoder


def load_model(run: str | Path) -> MaskedImageModel:
    """The whole method of a run: architecture from ``config.yaml``, weights from ``checkpoints/last.ckpt``.

    Of a run with an EMA these are the averaged weights, as everywhere that a run is read.

    Raises:
        UserError: If either file is missing or unreadable, or they do not belong together.
    """
    with seeded(0):
        model = build_model(_run_config(Path(run)))
    _load(model, _run_state(Path(run)), str(run))
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
    if not Path(source).exists() and _is_architecture(str(source)):
        tags = timm.list_pretrained(f"{source}.*") or ["none are published"]
        raise UserError(
            f"init_from {source} names an architecture without weights; {nearest(str(source), tags)}"
        )
    weights = read_weights(source, num_heads=num_heads)
    encoder = model.encoder
    if not isinstance(encoder, Encoder):
        raise TypeError(f"init_weights needs a method with an Encoder, got {type(encoder).__name__}")
    _load(encoder, _encoder_state(weights, encoder), str(source))
    loaded = ["encoder"]
    for name, part in model.named_children():
        state = _part(weights.state, name)
        if name != "encoder" and state and not _difference(part, state):
            part.load_state_dict(state)
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


def read_weights(source: str | Path, *, num_heads: int | None = None) -> Weights:
    """The weights of a run folder (last checkpoint), an encoder folder, a file, or a timm name with a tag.

    Raises:
        UserError: If there is no such thing or it cannot be read.
    """
    path = Path(source)
    if (path / "config.json").is_file():
        return _read_folder(path)
    if path.is_dir():
        return Weights(encoder_arguments(_run_config(path)), _run_state(path))
    if path.is_file():
        return _read_file(path, num_heads)
    if _is_architecture(str(source).partition(".")[0]):
        return _read_published(str(source))
    raise UserError(
        f"{source} is neither a run, a folder with an encoder, a file, nor a timm name; "
        f"{nearest(str(source), timm.list_models('vit_*'))}"
    )


def read_tensors(path: str | Path) -> dict[str, Any]:
    """The content of a ``.safetensors`` or ``torch.save`` file, on the CPU; nothing in it is executed.

    Raises:
        UserError: If the file is missing, truncated, or holds more than tensors and plain data.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(
            [argparse.Namespace]
        ):  # official checkpoints keep their options
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except Exception as error:  # a damaged file fails in as many ways as zip, pickle and storages have
        reason = short_reason(error)
        raise UserError(f"cannot read {path}, it is truncated or no file of weights ({reason})") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not tensors by name")
    return dict(content)


def _read_file(path: Path, num_heads: int | None) -> Weights:
    tensors = read_tensors(path)
    tensors = tensors.get("model", tensors)
    return Weights(official.encoder_arguments(tensors, num_heads=num_heads), official.method_state(tensors))


def _read_folder(folder: Path) -> Weights:
    config = _parse(folder / "config.json", json.loads)
    if "dppmask" not in config:
        raise UserError(f"{folder / 'config.json'} was not written by save_encoder: it lacks the key dppmask")
    tensors = read_tensors(folder / "model.safetensors")
    statistics = (tuple(config["pretrained_cfg"]["mean"]), tuple(config["pretrained_cfg"]["std"]))
    return Weights(config["dppmask"], official.method_state(tensors), statistics)


def _read_published(name: str) -> Weights:
    """A timm name with a tag, from the local Hugging Face cache."""
    config = timm.get_pretrained_cfg(name) if name in timm.list_pretrained() else None
    if config is None or not config.hf_hub_id:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise UserError(f"timm publishes no weights named {name}; {nearest(name, tags)}")
    repository = config.hf_hub_id + (name if config.hf_hub_id.endswith("/") else "")
    file = try_to_load_from_cache(repository, "model.safetensors")
    if not isinstance(file, str):
        raise UserError(
            f"the weights {name} are not in the local Hugging Face cache and nothing is downloaded here; "
            f"fetch them with: hf download {repository} model.safetensors"
        )
    model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": file})
    state = official.method_state(model.state_dict())
    arguments = {
        "backbone": name.partition(".")[0],
        "image_size": config.input_size[1:],
        "patch_size": state["encoder.backbone.patch_embed.proj.weight"].shape[-1],
        "position": "learned",
    }
    return Weights(arguments, state, (tuple(config.mean), tuple(config.std)))


def _run_config(run: Path) -> dict[str, Any]:
    config = _parse(run / "config.yaml", yaml.safe_load)
    if "method" not in config:
        raise UserError(f"{run / 'config.yaml'} is no configuration of a run: it lacks the key method")
    return config


def _run_state(run: Path) -> dict[str, Tensor]:
    """The method in a run's last checkpoint; where an average was kept, the averaged weights."""
    path = run / "checkpoints" / "last.ckpt"
    content = read_tensors(path)
    state = _part(content.get("state_dict", {}), "model")
    if not state:
        raise UserError(f"{path} holds no method: no tensor is named model.…")
    return state | content.get("callbacks", {}).get(AVERAGE, {}).get("weights", {})


def _parse(path: Path, parse: Any) -> dict[str, Any]:
    """A JSON or YAML file that must hold a mapping."""
    try:
        content = parse(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} is neither a run nor a folder with an encoder: there is no {path.name}"
        ) from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UserError(f"cannot read {path}: it must hold keys and values")
    return content


def _is_architecture(name: str) -> bool:
    return timm.is_model(name) and "." not in name


def _part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors below ``name.``, without it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _encoder_state(weights: Weights, encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's tensors, with the position table resized to its grid."""
    size, patch_size = weights.arguments.get("image_size", 224), weights.arguments.get("patch_size", 16)
    height, width = (size, size) if isinstance(size, int) else size
    old_grid = (height // patch_size, width // patch_size)
    table = resize_table(weights.state[_TABLE], old_grid, encoder.grid)
    return _part(weights.state | {_TABLE: table}, "encoder")


def _load(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor, or say in one line what does not fit."""
    difference = _difference(module, state)
    if difference:
        more = f" (and {len(difference) - 1} more)" if len(difference) > 1 else ""
        raise UserError(f"{source} does not fit this architecture: {difference[0]}{more}")
    module.load_state_dict(state)


def _difference(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """How a state dict differs from a module's, in names and shapes."""
    own = module.state_dict()
    missing = [f"{name} is missing" for name in own if name not in state]
    superfluous = [f"{name} has no place" for name in state if name not in own]
    misshapen = [
        f"{name} has shape {list(state[name].shape)} where {list(value.shape)} is wanted"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    return misshapen + missing + superfluous
