"""Objects to and from plain data: ``{"class_path": …, "init_args": {…}}``, as YAML files write it.

Works for classes whose constructor only stores its arguments under their own names, and for partial calls.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dppmask.errors import UserError


def describe(value: Any) -> Any:
    """Plain data (numbers, strings, lists, dicts, None) that :func:`build` turns into an equal object.

    Raises:
        TypeError: If an object does not keep a constructor argument under its name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key: describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, partial):
        return _spec(value.func, _defaults(value.func) | value.keywords)
    if isinstance(value, type):
        return _spec(value, _defaults(value))
    return _spec(type(value), {name: _attribute(value, name) for name in _parameters(type(value))})


def without_defaults(description: Any) -> Any:
    """What a description says beyond the defaults of its classes; :func:`build` still gives an equal object.

    An argument that a class is given later, with a default, leaves it as it is.
    """
    if isinstance(description, Mapping) and "class_path" in description:
        defaults = describe(_defaults(locate(description["class_path"])))
        given = description.get("init_args") or {}
        differing = {
            name: item for name, item in given.items() if name not in defaults or item != defaults[name]
        }
        return {
            "class_path": description["class_path"],
            "init_args": {name: without_defaults(item) for name, item in differing.items()},
        }
    if isinstance(description, Mapping):
        return {key: without_defaults(item) for key, item in description.items()}
    return [without_defaults(item) for item in description] if isinstance(description, list) else description


def build(spec: Any, *args: Any, **overrides: Any) -> Any:
    """The object a spec describes; ``args`` and ``overrides`` join the constructor's arguments.

    Raises:
        UserError: If the class does not exist or does not take an argument.
    """
    given = spec.get("init_args") or {}
    init_args = {name: _build_nested(item) for name, item in given.items()} | overrides
    factory = locate(spec["class_path"])
    try:
        inspect.signature(factory).bind(*args, **init_args)
    except TypeError as error:
        raise UserError(f"{spec['class_path']}: {error}") from None
    return factory(*args, **init_args)


def locate(class_path: str) -> Callable[..., Any]:
    """Import ``package.module.Name``.

    Raises:
        UserError: If there is no such thing.
    """
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"class_path must name an importable class, got {class_path!r} ({error})") from None


def _build_nested(item: Any) -> Any:
    if isinstance(item, list | tuple):
        return type(item)(_build_nested(part) for part in item)
    return build(item) if isinstance(item, Mapping) and "class_path" in item else item


def _spec(factory: Callable[..., Any], init_args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "class_path": f"{factory.__module__}.{factory.__qualname__}",
        "init_args": {name: describe(item) for name, item in init_args.items()},
    }


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in inspect.signature(factory).parameters.items() if p.kind in kinds}


def _defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    return {name: p.default for name, p in _parameters(factory).items() if p.default is not p.empty}


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except AttributeError:
        raise TypeError(f"{type(value).__name__} does not keep its constructor argument {name!r}") from None
