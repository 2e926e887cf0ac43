"""``dppmask evaluate``: one protocol, one JSON line."""

import json

from dppmask.commands.parser import call_with_options
from dppmask.evaluation.run import evaluate


def main(arguments: list[str]) -> str:
    """Evaluate; the record goes to stdout as one line."""
    return json.dumps(call_with_options("dppmask evaluate", evaluate, arguments))
