"""What one would type after ``dppmask pretrain`` or ``dppmask evaluate``, as data: recipes and options."""

import inspect
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from dppmask.errors import UserError, nearest
from dppmask.recipes import find_recipe
from dppmask.specs import describe
from dppmask.training import settings
from dppmask.training.run import pretrain

Options = dict[str, Any]

_PRETRAIN = inspect.signature(pretrain).parameters
_PACKAGES = {f"dppmask.{name}" for name in ("data", "models", "masks", "evaluation")}
_EVALUATE = {"protocol", "data", "image_size", "batch_size", "num_workers", "precision"}


@dataclass(frozen=True)
class Request:
    """Recipes by name, and options that win over them.

    Attributes:
        configs: Names of recipes or paths, in the order in which they are layered.
        options: Plain data; classes as ``class_path`` and ``init_args``, of which either may be left out
            where it is layered on another.
    """

    configs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Request":
        """From YAML: ``config`` is a name or a list of names, all other keys are options."""
        configs = entry.get("config", [])
        names = (configs,) if isinstance(configs, str) else tuple(configs)
        return cls(names, {name: value for name, value in entry.items() if name != "config"})

    def then(self, above: "Request") -> "Request":
        """Both, as on one command line: all recipes first, then the options, those of ``above`` last."""
        return Request((*self.configs, *above.configs), layered(self.options, above.options))

    def given(self) -> Options:
        """The options that the recipes and the request itself give.

        Raises:
            UserError: If there is no such recipe.
        """
        given: Options = {}
        for name in self.configs:
            given = layered(given, yaml.safe_load(find_recipe(name, option="config ").read_text()))
        return layered(given, self.options)

    def arguments(self) -> list[str]:
        """The command line."""
        configs = [part for name in self.configs for part in ("--config", name)]
        return configs + [part for name, value in self.options.items() for part in _typed(name, value)]

    def command(self, program: str, **more: Any) -> str:
        """The whole command, with further options."""
        extra = [part for name, value in more.items() for part in _typed(name, value)]
        return shlex.join([*program.split(), *self.arguments(), *extra])


def layered(below: Mapping[str, Any], above: Mapping[str, Any]) -> Options:
    """Options over options; arguments of a class add to those below as long as the class stays the same."""
    return {**below, **{name: _over(below.get(name), value) for name, value in above.items()}}


def pretraining(request: Request) -> Options:
    """Every option of a pre-training but ``run`` as plain data, the defaults filled in.

    Raises:
        UserError: If an option does not exist, a class refuses its arguments, or no mask is named.
    """
    given = request.given()
    names = [name for name in _PRETRAIN if name not in {"run", *settings.UNSTORED}]
    _check_names(given, names, "pretrain")
    if given.get("mask") is None:
        raise UserError("mask must be named in every row, as a recipe (config: masks/random) or a class")
    return settings.plain({**{name: _PRETRAIN[name].default for name in names}, **given})


def pretrain_defaults() -> Options:
    """The defaults of ``pretrain`` as plain data."""
    return {
        name: describe(parameter.default)
        for name, parameter in _PRETRAIN.items()
        if parameter.default is not parameter.empty and name not in settings.UNSTORED
    }


def evaluation(request: Request) -> Options:
    """Every option of an evaluation but ``run`` and ``seed`` as plain data; the protocol's defaults are not.

    Raises:
        UserError: If an option does not exist, or protocol or data are missing.
    """
    given = request.given()
    _check_names(given, _EVALUATE, "evaluate")
    for name in ("protocol", "data"):
        if "class_path" not in given.get(name, {}):
            raise UserError(f"{name} must be given for every evaluation, as a recipe or a class")
    return describe(given)


def _check_names(given: Mapping[str, Any], known: Any, program: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"{program} has no option {name}; {nearest(str(name), known)}")


def _is_class(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() <= {"class_path", "init_args"} and bool(value)


def _over(below: Any, above: Any) -> Any:
    if not (_is_class(below) and _is_class(above)):
        return above
    if below.get("class_path", None) != above.get("class_path", below.get("class_path", None)):
        return above
    return {
        **below,
        **above,
        "init_args": {**(below.get("init_args") or {}), **(above.get("init_args") or {})},
    }


def _typed(name: str, value: Any) -> list[str]:
    """An option as one types it."""
    if _is_class(value):
        named = [f"--{name}", _short(value["class_path"])] if "class_path" in value else []
        inside = (value.get("init_args") or {}).items()
        return named + [part for key, item in inside for part in _typed(f"{name}.{key}", item)]
    return [f"--{name}", value if isinstance(value, str) else json.dumps(value)]


def _short(class_path: str) -> str:
    """The name by which the command line knows a class; the whole path of one that it does not look for."""
    known = class_path.rpartition(".")[0].rpartition(".")[0] in _PACKAGES
    return class_path.rpartition(".")[2] if known else class_path
