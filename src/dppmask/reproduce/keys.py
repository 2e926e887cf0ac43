"""The name of a result: a hash of everything that decides it, and of nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dppmask.reproduce.request import Options, pretrain_defaults
from dppmask.specs import build, describe, without_defaults
from dppmask.training import settings

# Part of every key: raise it when results change for a reason that no option tells.
VERSION = 1

SPEED = {"batch_size", "num_workers"}  # of an evaluation: they change nothing but rounding
LOCAL = {"cache_dir", "out"}  # of a data source, of a protocol: where a machine keeps things


def fingerprint(value: Any) -> str:
    """Sixteen hexadecimal digits for plain data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def training_identity(options: Options) -> Options:
    """What decides the weights of a run: its options beyond the defaults, its seed among them.

    Defaults are left out so that an option which ``pretrain`` or a class gains later changes no key.
    """
    defaults = pretrain_defaults()
    return {
        name: _identity(value)
        for name, value in options.items()
        if name not in settings.FREE and (name not in defaults or value != defaults[name])
    }


def evaluation_identity(options: Options) -> Options:
    """What decides the numbers of an evaluation, besides what is evaluated and the seed."""
    return {
        name: _identity(describe(build(value)) if "class_path" in value else value)
        if isinstance(value, Mapping)
        else value
        for name, value in options.items()
        if name not in SPEED and value is not None
    }


def run_key(identity: Options) -> str:
    """The key of a pre-training."""
    return fingerprint({"version": VERSION, "pretrain": identity})


def cell_key(run: str | None, evaluation: Options | None, seed: int) -> str:
    """The key of what one evaluation says about a run; no evaluation is what the training itself says.

    Args:
        run: Key of the pre-training; None where nothing is trained.
        evaluation: Its identity.
        seed: Of the evaluation.
    """
    return fingerprint({"version": VERSION, "run": run, "evaluate": evaluation, "seed": seed})


def _identity(value: Any) -> Any:
    """Plain data without defaults and without what is local to a machine."""
    return _without_local(without_defaults(value))


def _without_local(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_local(item) for name, item in value.items() if name not in LOCAL}
    return [_without_local(item) for item in value] if isinstance(value, list) else value
