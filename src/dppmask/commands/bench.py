"""``dppmask bench``: what masks cost."""

from dppmask.bench.run import bench
from dppmask.commands.parser import call_with_options


def main(arguments: list[str]) -> str:
    """Measure; the tables go to stdout."""
    return call_with_options("dppmask bench", bench, arguments)
