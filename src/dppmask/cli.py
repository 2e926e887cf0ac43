"""The ``dppmask`` command: finds the sub-command, prints its result, and says in one line what went wrong.

Only the chosen command is imported, so ``dppmask --help`` needs neither torch nor jsonargparse.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dppmask import __version__
from dppmask.errors import DISK_FULL, INTERRUPTED, USER_ERROR, UserError, nearest


class Command(NamedTuple):
    """Where a command lives ("module:function") and what it does."""

    target: str
    summary: str


COMMANDS = {
    "pretrain": Command(
        "dppmask.commands.pretrain:main", "train an encoder on images, with the masks of your choice"
    ),
    "evaluate": Command(
        "dppmask.commands.evaluate:main", "score a run or an encoder: k-NN, linear probe, masks, …"
    ),
    "masks": Command("dppmask.commands.masks:main", "draw strategies side by side on the same images"),
    "attention": Command(
        "dppmask.commands.attention:main", "draw what the class token of an encoder attends to"
    ),
    "similarity": Command("dppmask.commands.similarity:main", "draw how alike an encoder's patch tokens are"),
    "covisibility": Command(
        "dppmask.commands.covisibility:main", "draw which patches masks show together with a chosen one"
    ),
    "features": Command("dppmask.commands.features:main", "write the embeddings of a data set to a file"),
    "export": Command(
        "dppmask.commands.export:main", "write an encoder as safetensors that timm alone loads"
    ),
    "scenes": Command(
        "dppmask.commands.scenes:main", "write the built-in data as ImageFolder, CLEVR or COCO"
    ),
    "plot": Command("dppmask.commands.plot:main", "draw the results of one protocol, of one or several runs"),
    "bench": Command("dppmask.commands.bench:main", "measure what masks cost, alone and in the step"),
    "backgrounds": Command(
        "dppmask.commands.backgrounds:main", "write images with other backgrounds, for --protocol Backgrounds"
    ),
    "variants": Command("dppmask.commands.variants:main", "draw images with other backgrounds side by side"),
    "reproduce": Command(
        "dppmask.commands.reproduce:main", "fill in the paper's tables and figures, and report"
    ),
    "recipes": Command("dppmask.commands.recipes:main", "list the shipped recipes, or print one"),
}
DEBUG = "DPPMASK_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line after ``dppmask``; the process's own by default.

    Returns:
        The exit code: 0, 2 after a wrong option, file or value, 130 if it was stopped.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "--version"):
        print(_help() if name != "--version" else f"dppmask {__version__}")
        return 0
    try:
        result = _run(name, arguments[1:])
    except (UserError, OSError, ModuleNotFoundError) as error:
        if (message := _explain(error)) is None:
            raise
        return _fail(f"dppmask {name}" if name in COMMANDS else "dppmask", message, USER_ERROR)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interrupt into a silent exit.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        reason = str(stop) if isinstance(stop, KeyboardInterrupt) else ""
        return _fail(f"dppmask {name}", reason or "interrupted", INTERRUPTED)
    if result is not None:
        print(result)
    return 0


def _run(name: str, arguments: list[str]) -> str | None:
    """Import the command and run it."""
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}; {nearest(name, COMMANDS)}")
    module, _, function = COMMANDS[name].target.partition(":")
    command: Callable[[list[str]], str | None] = getattr(importlib.import_module(module), function)
    return command(arguments)


def _explain(error: Exception) -> str | None:
    """What the user can do about an error; None where it is a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        if error.filename:
            return f"{error.strerror}: {error.filename}"
        if error.errno in DISK_FULL:  # writing to an open file does not say to which
            return f"the disk is full ({error.strerror}); free some space and try again"
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("dppmask"):
        return f"this command needs the package {error.name}; pip install 'dppmask[train]' brings it"
    return None


def _fail(program: str, message: str, code: int) -> int:
    """One line on stderr, after the traceback where somebody asked for it."""
    if os.environ.get(DEBUG):
        traceback.print_exc()
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _help() -> str:
    lines = [f"  {name:<14}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dppmask COMMAND [--option VALUE …] [--config RECIPE …]",
            "",
            "Masked image modelling with determinantal point processes.",
            "",
            *lines,
            "",
            "dppmask COMMAND --help     the options of a command",
            "dppmask --version          the version",
            f"{DEBUG}=1            shows where an error came from",
        ]
    )
