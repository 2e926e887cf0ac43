"""``dppmask`` commands run from Python, each shown as one would type it."""

import contextlib
import io
import json
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from dppmask import cli


def as_typed(*arguments: str) -> str:
    """A command as one would type it."""
    return shlex.join(["dppmask", *arguments])


def options_of(values: Mapping[str, Any]) -> list[str]:
    """Options as one types them: ``--name`` and value in turn."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return [text for name, value in texts.items() for text in (f"--{name}", value)]


def run_command(*arguments: str) -> str:
    """Show a command on stderr, run it, and return what it printed as its result.

    Raises:
        SystemExit: If it fails; it has then explained itself.
    """
    print(f"$ {as_typed(*arguments)}", file=sys.stderr, flush=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = cli.main(list(arguments))
    if code:
        raise SystemExit(code)
    return printed.getvalue()


def record_of(*arguments: str) -> dict[str, Any]:
    """The same for commands that print one JSON line."""
    return json.loads(run_command(*arguments))
