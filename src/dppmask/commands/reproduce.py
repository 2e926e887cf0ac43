"""``dppmask reproduce``: the paper's tables and figures."""

import contextlib
import itertools
import sys

from dppmask.commands.parser import OptionParser
from dppmask.reproduce.run import reproduce


def main(arguments: list[str]) -> str:
    """Reproduce; the report's path, or the plan, goes to stdout. What stands before the options are names.

    Raises:
        KeyboardInterrupt: If it was stopped.
    """
    names = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = OptionParser("dppmask reproduce NAME …", reproduce, skip={"names"}).parse(
        arguments[len(names) :]
    )
    with contextlib.redirect_stdout(sys.stderr):
        try:
            return reproduce(names, **options)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped early; the same command goes on") from None
