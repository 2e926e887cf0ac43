"""Weights read from somewhere: runs, encoder folders, official and timm files, published names.

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
from timm.models import PretrainedCfg
from torch import Tensor, nn

from dppmask.errors import UserError, nearest, short_reason
from dppmask.models import official
from dppmask.models.build import encoder_arguments, exported_part
from dppmask.models.encoder import Encoder
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
        state: Tensors by name as in a method: ``encoder.backbone.…``, ``decoder.…``. Where a method exports
            its teacher, that is the encoder here.
        statistics: Mean and standard deviation of the images, where they are known.
    """

    arguments: dict[str, Any]
    state: dict[str, Tensor]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


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
    if not path.exists() and is_architecture(str(source)):
        _logger.warning("%s is an architecture without weights: this encoder is untrained", source)
        with seeded(0):
            return Encoder(str(source), image_size=image_size or 224)
    exported = path / "encoder"
    weights = read_weights(exported if (exported / "config.json").is_file() else source, num_heads=num_heads)
    with seeded(0):
        encoder = Encoder(**weights.arguments | ({} if image_size is None else {"image_size": image_size}))
    load_into(encoder, encoder_state(weights, encoder), str(source))
    if weights.statistics is not None:
        encoder.mean, encoder.std = weights.statistics
    return encoder


def read_weights(source: str | Path, *, num_heads: int | None = None) -> Weights:
    """The weights of a run folder (last checkpoint), an encoder folder, a file, or a timm name with a tag.

    Raises:
        UserError: If there is no such thing or it cannot be read.
    """
    path = Path(source)
    if (path / "config.json").is_file():
        return _read_folder(path)
    if path.is_dir():
        config = run_config(path)
        return Weights(encoder_arguments(config), _with_exported(run_state(path), exported_part(config)))
    if path.is_file():
        return _read_file(path, num_heads)
    if is_architecture(str(source).partition(".")[0]):
        return _read_published(str(source))
    if path.parent != Path():  # timm's names hold no slash
        beside = [str(other) for other in path.parent.glob("*")]
        hint = nearest(str(source), beside) if beside else f"nor does anything in {path.parent}"
        raise UserError(f"{source} does not exist; {hint}")
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
        raise UserError(
            f"cannot read {path}, it is truncated or no file of weights ({short_reason(error)})"
        ) from None
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
    config, file = published(name)
    model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": file})
    state = official.method_state(model.state_dict())
    arguments = {
        "backbone": name.partition(".")[0],
        "image_size": config.input_size[1:],
        "patch_size": state["encoder.backbone.patch_embed.proj.weight"].shape[-1],
        "position": "learned",
    }
    return Weights(arguments, state, (tuple(config.mean), tuple(config.std)))


def published(name: str) -> tuple[PretrainedCfg, str]:
    """What timm says about a name with a tag, and its weights in the local Hugging Face cache.

    Raises:
        UserError: If there are no such weights, or they are not there.
    """
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
    return config, file


def _with_exported(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of a method in which the part to keep takes the place of the encoder."""
    if name == "encoder":
        return dict(state)
    others = {key: value for key, value in state.items() if not key.startswith("encoder.")}
    return others | {f"encoder.{key}": value for key, value in below(state, name).items()}


def run_config(run: Path) -> dict[str, Any]:
    """The options of a run.

    Raises:
        UserError: If the folder is no run.
    """
    config = _parse(run / "config.yaml", yaml.safe_load)
    if "method" not in config:
        raise UserError(f"{run / 'config.yaml'} is no configuration of a run: it lacks the key method")
    return config


def run_state(run: Path) -> dict[str, Tensor]:
    """The tensors of a run's method, by name, from its last checkpoint; averaged where an average was kept.

    Raises:
        UserError: If there is none, or it cannot be read.
    """
    path = run / "checkpoints" / "last.ckpt"
    content = read_tensors(path)
    state = below(content.get("state_dict", {}), "model")
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


def is_architecture(name: str) -> bool:
    """Whether this is the name of a timm architecture, without weights."""
    return timm.is_model(name) and "." not in name


def below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors below ``name.``, without it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def encoder_state(weights: Weights, encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's tensors, with the position table resized to its grid."""
    size, patch_size = weights.arguments.get("image_size", 224), weights.arguments.get("patch_size", 16)
    height, width = (size, size) if isinstance(size, int) else size
    old_grid = (height // patch_size, width // patch_size)
    table = resize_table(weights.state[_TABLE], old_grid, encoder.grid)
    return below(weights.state | {_TABLE: table}, "encoder")


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor, or say in one line what does not fit."""
    difference = difference_from(module, state)
    if difference:
        more = f" (and {len(difference) - 1} more)" if len(difference) > 1 else ""
        raise UserError(f"{source} does not fit this architecture: {difference[0]}{more}")
    module.load_state_dict(state)


def difference_from(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
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
