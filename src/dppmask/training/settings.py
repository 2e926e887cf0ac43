"""The arguments of a run as plain data: written to ``config.yaml``, and compared when a run goes on."""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import yaml

from dppmask.errors import UserError
from dppmask.specs import build, describe, locate
from dppmask.views import check_scale

P = ParamSpec("P")
T = TypeVar("T")

CONFIG = "config.yaml"

# Not part of what a run is: objects of the caller, and the wish to go on.
UNSTORED = {"resume", "callbacks", "given"}

# May change when a run goes on: speed and what is kept. Another device, and compiled code, round otherwise.
FREE = {
    "run",
    "num_workers",
    "compile",
    "loggers",
    "save_every",
    "save_last_every",
    "log_every",
    "accelerator",
}


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as numbers, strings, lists and specs; specs with every default filled in.

    Raises:
        UserError: If a spec names no class, or an argument its class does not take.
    """
    return {name: describe(_opened(name, value)) for name, value in options.items() if name not in UNSTORED}


def _opened(name: str, value: Any) -> Any:
    """An option given as a spec, as the object (or, for a method, the partial call) it stands for."""
    if isinstance(value, Path):
        return str(value)
    if not (isinstance(value, Mapping) and "class_path" in value):
        return value
    if name == "method":  # its first argument, the encoder, is not known yet
        return partial(locate(value["class_path"]), **(value.get("init_args") or {}))
    return build(value)


def stored(run: Path) -> dict[str, Any] | None:
    """The options a run was started with; None if it was stopped before it wrote them.

    Raises:
        UserError: If the file is not one of ours.
    """
    path = run / CONFIG
    if not path.exists():
        return None
    try:
        options = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(options, dict):
        raise UserError(f"{path} must hold the options of a run, got {type(options).__name__}")
    return options


def told_what_is_given(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function know the names of its call's arguments, in ``given``, which no caller sees.

    An argument that is given and one that is left out may have the same value, and yet not mean the same.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **{**kwargs, "given": frozenset(kwargs)})  # type: ignore[arg-type]

    signature = inspect.signature(function)
    visible = [parameter for parameter in signature.parameters.values() if parameter.name != "given"]
    call.__signature__ = signature.replace(parameters=visible)  # type: ignore[attr-defined]
    return call


def completed(config: Mapping[str, Any], given: Collection[str], old: Mapping[str, Any]) -> dict[str, Any]:
    """Every option that is not given, as the run was started with; all in plain form."""
    return {name: value if name in given else old.get(name, value) for name, value in config.items()}


def check_numbers(config: Mapping[str, Any]) -> None:
    """Refuse numbers that make no training.

    Raises:
        UserError: Naming the first such option.
    """
    for name in (
        "epochs",
        "batch_size",
        "accumulate",
        "devices",
        "num_nodes",
        "save_last_every",
        "log_every",
    ):
        if config[name] < 1:
            raise UserError(f"{name} must be at least 1, got {config[name]}")
    for name in ("save_every", "num_workers", "base_lr", "min_lr", "weight_decay"):
        if not 0 <= config[name] < math.inf:
            raise UserError(f"{name} must be at least 0 and finite, got {config[name]}")
    check_scale("crop_scale", config["crop_scale"], example=(0.2, 1.0))
    _check_optimiser(config)


def _check_optimiser(config: Mapping[str, Any]) -> None:
    if len(config["betas"]) != 2 or not all(0 <= beta < 1 for beta in config["betas"]):
        raise UserError(f"betas must be two numbers in [0, 1), got {config['betas']}; MAE uses [0.9, 0.95]")
    if config["clip_grad"] is not None and not config["clip_grad"] > 0:
        raise UserError(f"clip_grad must be above 0, got {config['clip_grad']}; leave it out not to clip")
    end = config["weight_decay_end"]
    if end is not None and not 0 <= end < math.inf:
        raise UserError(f"weight_decay_end must be at least 0 and finite, got {end}; iBOT uses 0.4")
    if end is not None and config["weight_decay"] <= 0:
        raise UserError(
            f"weight_decay must be above 0 where weight_decay_end is given, got {config['weight_decay']}"
        )


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], run: Path) -> None:
    """Refuse to go on with options that would train something else.

    Raises:
        UserError: Naming the first option that differs.
    """
    for name, value in new.items():
        if name not in FREE and name in old and old[name] != value:
            raise UserError(
                f"cannot resume {run} with {name}={brief(value)}: it was started with {brief(old[name])}; "
                f"leave {name} as it was, or start another run"
            )


def brief(value: Any) -> str:
    """A value as a user would write it: ``DPPMask(purge_ratio=0.3)``."""
    if isinstance(value, Mapping) and "class_path" in value:
        arguments = ", ".join(f"{name}={brief(item)}" for name, item in value.get("init_args", {}).items())
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    return repr(value)
