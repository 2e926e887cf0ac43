"""Options of a command from the signature of a Python function, its classes, and layered YAML files."""

import argparse
import contextlib
import importlib
import inspect
import itertools
import os
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from dppmask import specs
from dppmask.commands.messages import must_name, one_line, shipped_names
from dppmask.commands.signatures import told_in_words
from dppmask.errors import UserError, nearest
from dppmask.recipes import find_recipe

T = TypeVar("T")


@dataclass(frozen=True)
class ClassOption:
    """An option whose value is a class with arguments.

    Attributes:
        package: Where our own classes live; all its modules are imported, so that short names are known.
        base: "module:Class" that every choice derives from.
        help: One line.
        given: Constructor arguments that the program supplies itself.
    """

    package: str
    base: str
    help: str
    given: frozenset[str] = frozenset()

    def load(self) -> type:
        """The base class, once every choice has been imported."""
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__, f"{self.package}."):
            importlib.import_module(module.name)
        module_name, _, name = self.base.partition(":")
        return getattr(importlib.import_module(module_name), name)


_TEXT = (str, str | None)

# A parameter of one of these names is a class option, in whichever command it stands, unless it is text.
CLASS_OPTIONS = {
    "data": ClassOption("dppmask.data", "dppmask.data.base:ImageSource", "the images"),
    "method": ClassOption(
        "dppmask.models", "dppmask.models.base:MaskedImageModel", "what is learned", frozenset({"encoder"})
    ),
    "mask": ClassOption("dppmask.masks", "dppmask.masks.base:MaskStrategy", "who is hidden"),
    "protocol": ClassOption("dppmask.evaluation", "dppmask.evaluation.base:Protocol", "how it is scored"),
}


class OptionParser:
    """Reads the keyword arguments of a function from a command line.

    Every parameter becomes an option of the same name, as far as it can be told in words; those named in
    ``CLASS_OPTIONS`` take a class by short name or full path (``--mask DPPMask --mask.purge_ratio 0.3``), and
    several where the parameter is a list (``--mask+ A --mask+ B``). Files given with ``--config`` are layered
    in order, and options on the command line win over all of them.

    Args:
        program: What the help calls the command.
        function: The function.
        skip: Parameters that are no options.
    """

    def __init__(
        self,
        program: str,
        function: Callable[..., Any],
        *,
        skip: Collection[str] = (),
    ) -> None:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # the user's own masks and methods, as under ``python -m``
        needed = _without_default(function)
        function = told_in_words(function)
        parameters = inspect.signature(function).parameters
        self.left_out = needed - _without_default(function)
        self.names = [name for name in parameters if name not in skip]
        hints = typing.get_type_hints(function)
        chosen = [name for name in self.names if name in CLASS_OPTIONS and hints.get(name) not in _TEXT]
        self.classes = {name: CLASS_OPTIONS[name].load() for name in chosen}
        self.switches = {name for name in self.names if hints.get(name) is bool}
        self.lists = {name for name in self.names if typing.get_origin(hints.get(name)) in (list, Sequence)}
        shipped = {name for base in self.classes.values() for name in shipped_names(base)}
        self._parser = ArgumentParser(
            prog=program,
            description=_summary(function),
            exit_on_error=False,
            allow_abbrev=False,
            formatter_class=_help_formatter(shipped),
        )
        self._parser.add_argument(
            "--config", action=ActionConfigFile, help="a YAML file or the name of a recipe; may be repeated"
        )
        for name in self.classes:
            self._add_class(name, parameters[name].default)
        self._parser.add_function_arguments(
            function, as_positional=False, skip={*skip, *self.classes}, fail_untyped=False
        )

    def parse(self, arguments: list[str]) -> dict[str, Any]:
        """The arguments that are given, in a file or on the command line, also where they equal the defaults.

        Those that the function cannot do without are None if they may be.

        Classes come as objects; those that the program must give an argument itself (a method its encoder) as
        their ``class_path`` and ``init_args``.

        Raises:
            UserError: If an option, a value or a file is wrong, or a constructor refuses its arguments.
        """
        arranged = self._arrange(arguments)
        try:
            parsed = self._parser.parse_args(arranged)
        except argparse.ArgumentError as error:
            raise UserError(one_line(str(error), options=self.names, classes=self.classes)) from error
        given = _names_in(arranged)
        options = {name: _plain(parsed[name]) for name in self.names if name in given | self.left_out}
        for name in self.classes.keys() & options.keys():
            _check_choice(name, options[name], self.classes[name])
        return {name: _build(name, v) if name in self.classes else v for name, v in options.items()}

    def _add_class(self, name: str, default: Any) -> None:
        option, base = CLASS_OPTIONS[name], self.classes[name]
        if name in self.lists:
            self._parser.add_argument(f"--{name}", type=list[base], required=True, help=option.help)  # type: ignore[valid-type]
            return
        required = default is inspect.Parameter.empty
        self._parser.add_subclass_arguments(
            base,
            name,
            required=required,
            skip=set(option.given),
            help=option.help,
            **({} if required else {"default": specs.describe(default)}),
        )

    def _arrange(self, arguments: list[str]) -> list[str]:
        """Files first, found by name, so that the command line wins."""
        configs: list[str] = []
        options: list[str] = []
        rest = iter(arguments)
        for argument in rest:
            if argument.partition("=")[0] != "--config":
                options.append(argument)
                continue
            name = argument.partition("=")[2] or next(rest, "")
            configs += ["--config", self._check_file(name)]
        return [*configs, *self._expand(options)]

    def _expand(self, options: list[str]) -> Iterator[str]:
        """A bare switch means true, and one value of a list is added to it."""
        for option, following in itertools.pairwise([*options, "--"]):
            name = option.removeprefix("--")
            adds = name in self.lists and not following.startswith("[")
            yield f"{option}+" if adds else option
            if name in self.switches and following.startswith("--"):
                yield "true"

    def _check_file(self, name: str) -> str:
        """The path of a file or recipe whose keys are options of this command."""
        if not name or name.startswith("--"):
            raise UserError("--config needs a value: a YAML file or the name of a recipe")
        path = find_recipe(name)
        try:
            content = yaml.safe_load(path.read_text())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else "?"
            raise UserError(f"--config {name} is no valid YAML: line {line}: {error.problem}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"--config {name} is no YAML file: {error}") from error
        if not isinstance(content, dict):
            raise UserError(f"--config {name} must hold options, one 'name: value' a line")
        for key in content:
            if key not in self.names:
                raise UserError(f"--config {name}: unknown option {key}; {nearest(str(key), self.names)}")
        return str(path)


def call_with_options(program: str, function: Callable[..., T], arguments: list[str]) -> T:
    """Read the options of a function and call it; what it prints while it works goes to stderr."""
    options = OptionParser(program, function).parse(arguments)
    with contextlib.redirect_stdout(sys.stderr):
        return function(**options)


def _help_formatter(shipped: Collection[str]) -> type[DefaultHelpFormatter]:
    """jsonargparse's, which offers every class there is, made to offer these alone."""

    class Formatter(DefaultHelpFormatter):
        def _expand_help(self, action: argparse.Action) -> str:
            text = super()._expand_help(action)
            before, known, paths = text.partition(", known subclasses: ")
            names = (path.rpartition(".")[2] for path in paths.rstrip(")").split(", "))
            offered = ", ".join(sorted(name for name in names if name in shipped))
            return f"{before}, one of: {offered})" if known else text

    return Formatter


def _names_in(arranged: Sequence[str]) -> set[str]:
    """The options that arguments give, themselves or in their files."""
    names: set[str] = set()
    for argument, following in itertools.pairwise([*arranged, ""]):
        if argument == "--config":
            names |= yaml.safe_load(Path(following).read_text()).keys()
        elif argument.startswith("--"):
            names.add(re.split("[.+=]", argument.removeprefix("--"))[0])
    return names


def _without_default(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.default is parameter.empty}


def _summary(function: Callable[..., Any]) -> str:
    """What stands above the arguments in a docstring."""
    return (inspect.getdoc(function) or "").partition("\nArgs:")[0]


def _check_choice(option: str, value: Any, base: type) -> None:
    """Refuse what is there to be derived from: the base class, or an abstract one."""
    for spec in value if isinstance(value, list) else [value]:
        if spec is not None:
            chosen = specs.locate(spec["class_path"])
            if chosen is base or inspect.isabstract(chosen):
                raise UserError(f"{must_name(f'--{option}', base)}, got {spec['class_path']}")


def _build(option: str, value: Any) -> Any:
    """The object that a class option describes; other values as they are."""
    if CLASS_OPTIONS[option].given or value is None:
        return value
    if isinstance(value, list):
        return [_build(option, item) for item in value]
    try:
        return specs.build(value)
    except ValueError as error:
        raise UserError(f"--{option}: {error}") from error


def _plain(value: Any) -> Any:
    """Namespaces to dicts, through lists."""
    if isinstance(value, Namespace):
        return value.as_dict()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
