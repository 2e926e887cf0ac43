"""``dppmask evaluate``: one protocol, one JSON line."""

import json

from dppmask.commands.parser import call_with_options
from dppmask.evaluation import ranks
from dppmask.evaluation.run import evaluate


def main(arguments: list[str]) -> str | None:
    """Evaluate; the record goes to stdout as one line, once however many processes evaluate."""
    record = call_with_options("dppmask evaluate", evaluate, arguments)
    return json.dumps(record) if ranks.is_first() else None
