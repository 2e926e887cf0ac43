"""A function of the library as a command line sees it."""

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable
from typing import Any


def told_in_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """A stand-in with the same docstring, whose parameters are what a text can give.

    Where an argument may be text, the classes that it may be instead (a path, an encoder) are left out: those
    are for callers from Python. An argument that may be None need not be given: None is its default.
    """

    @functools.wraps(function)
    def stand_in(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    hints = {name: _in_words(hint) for name, hint in typing.get_type_hints(function).items()}
    signature = inspect.signature(function)
    parameters = [_parameter(each, hints) for each in signature.parameters.values()]
    stand_in.__annotations__ = hints
    stand_in.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return stand_in


def _parameter(parameter: inspect.Parameter, hints: dict[str, Any]) -> inspect.Parameter:
    hint, default = hints.get(parameter.name, parameter.annotation), parameter.default
    if default is parameter.empty and types.NoneType in typing.get_args(hint):
        default = None
    return parameter.replace(annotation=hint, default=default, kind=parameter.KEYWORD_ONLY)


def _in_words(hint: Any) -> Any:
    choices = typing.get_args(hint)
    if str not in choices or typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    told = [each for each in choices if not isinstance(each, type) or each.__module__ == "builtins"]
    return functools.reduce(operator.or_, told)
