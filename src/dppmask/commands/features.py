"""``dppmask features``: the embeddings of a data set."""

from dppmask.commands.parser import call_with_options
from dppmask.evaluation.extract import extract


def main(arguments: list[str]) -> str:
    """Extract; the file goes to stdout."""
    return str(call_with_options("dppmask features", extract, arguments))
