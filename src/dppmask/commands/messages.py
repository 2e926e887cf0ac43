"""jsonargparse's complaints, retold in one line: the option, the rule, the value, the nearest right name."""

import inspect
import re
from collections.abc import Iterable, Mapping

from dppmask.errors import nearest

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "tuple": "[a, b]",
    "list": "a list",
    "Sequence": "a list",
    "Mapping": "a mapping",
    "NoneType": "null",
}
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def one_line(message: str, *, options: Iterable[str], classes: Mapping[str, type]) -> str:
    """Retell a message of jsonargparse 4.53; what it does not know it only joins into one line.

    Args:
        message: The text of the exception.
        options: Names of all options of the command.
        classes: Option name → base class, for options that take a class.
    """
    keys = re.findall(r'Parser key "([^"]+)"', message)
    option = "--" + ".".join(keys)
    for tell in (_unknown_option, _missing, _no_value):
        if line := tell(message, option, options):
            return line
    if keys and keys[0] in classes and (line := _wrong_class(message, option, classes[keys[0]])):
        return line
    if keys and (line := _wrong_value(message, option)):
        if len(keys) == 1 and keys[0] in classes:
            return f"{must_name(option, classes[keys[0]])}, got {line.rpartition(', got ')[2]}"
        return line
    return " ".join(message.split())


def class_names(base: type) -> dict[str, type]:
    """Short name → class, for all that derives from ``base`` and is neither abstract nor private."""
    derived: list[type] = base.__subclasses__()
    found = {
        cls.__name__: cls for cls in derived if not (inspect.isabstract(cls) or cls.__name__.startswith("_"))
    }
    for cls in derived:
        found |= class_names(cls)
    return found


def shipped_names(base: type) -> list[str]:
    """Short names of the classes of this package that derive from ``base`` and have no heirs themselves."""
    shipped = {name: cls for name, cls in class_names(base).items() if cls.__module__.startswith("dppmask.")}
    return sorted(name for name, cls in shipped.items() if not shipped.keys() & class_names(cls).keys())


def must_name(option: str, base: type) -> str:
    """What may be given for an option that takes a class."""
    choices = ", ".join(shipped_names(base))
    return f"{option} must name one of {choices}, or the full path of your own {base.__name__}"


def _unknown_option(message: str, option: str, options: Iterable[str]) -> str | None:
    if match := re.search(r"unrecognized arguments: (\S+)", message):
        argument = match[1]
        if not argument.startswith("-"):
            return f"unexpected argument {argument!r}; every option is written --name value"
        name = argument.lstrip("-").partition("=")[0]
        return f"unknown option --{name}; {nearest(name, options)}"
    return None


def _missing(message: str, option: str, options: Iterable[str]) -> str | None:
    if match := re.search(r"the following arguments are required: (.+)", message):
        prefix = "--" if option == "--" else f"{option}."
        names = ", ".join(prefix + name for name in match[1].split(", "))
        return f"required and not given: {names}"
    return None


def _no_value(message: str, option: str, options: Iterable[str]) -> str | None:
    match = re.search(r"argument (--\S+): expected one argument", message)
    return f"{match[1]} needs a value" if match else None


def _wrong_class(message: str, option: str, base: type) -> str | None:
    known = class_names(base)
    if match := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{option}: unknown {match[1]}; {nearest(match[1], shipped_names(base))}"
    if re.search(r"Import path .*does not correspond to a subclass", message):
        return must_name(option, base)
    chosen = re.findall(r"Problem with given class_path '([^']+)'", message)
    if not chosen:
        return None
    name = chosen[-1].rpartition(".")[2]  # the innermost one
    if match := re.search(r"Option '([^']+)' is not accepted", message):
        if name == base.__name__:
            return f"{option}.{match[1]} stands before {option} NAME, or without it"
        return f"unknown option {option}.{match[1]}; {_arguments_hint(match[1], name, known)}"
    if match := re.search(r"(No module named .+|cannot import .+|has no attribute .+)", message):
        return f"{option}: cannot find {chosen[-1]} ({match[1]})"
    return None


def _arguments_hint(name: str, class_name: str, known: Mapping[str, type]) -> str:
    """The constructor argument that was meant."""
    if class_name not in known:
        return f"{class_name} has no such argument"
    parameters = inspect.signature(known[class_name]).parameters.values()
    options = [parameter.name for parameter in parameters if parameter.kind not in _VARIADIC]
    if name in options:
        return f"{class_name} is given its {name} by the program"
    return f"{class_name}: {nearest(name, options)}" if options else f"{class_name} takes no options"


def _wrong_value(message: str, option: str) -> str | None:
    if match := re.search(r"Expected a (?:typing\.)?Literal\[(.+)\]\. Got value: (.*)", message):
        choices = [choice.strip("'\"") for choice in match[1].split(", ")]
        return f"{option} must be one of {', '.join(choices)}, got {match[2]}"
    if match := re.search(r"Expected an? (.+)\. Got value: (.*)", message):
        return f"{option} must be {_words(match[1])}, got {match[2]}"
    if match := re.search(r"Subtypes: \[(.+)\].*Given value: ([^\n]*)", message, re.DOTALL):
        return f"{option} must be {_words(match[1])}, got {match[2]}"
    return None


def _words(types: str) -> str:
    """``<class 'float'>, tuple[int, int], <class 'NoneType'>`` → "a number or [a, b] or null"."""
    names = re.findall(r"(?:<class ')?(?:\w+\.)*(\w+)(?:'>)?(\[[^\]]*\])?", types)
    return " or ".join(_WORDS.get(name, name + arguments) for name, arguments in names)
