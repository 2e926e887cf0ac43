"""Records of evaluations, read from files and handed to the figure of their protocol."""

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dppmask.errors import UserError, nearest
from dppmask.figures import scores

Record = Mapping[str, Any]  # what dppmask.evaluate returns

_SAME = ("protocol", "settings", "data", "subject", "seed")  # two records equal in these say the same


def read_records(results: Sequence[str | Path]) -> list[Record]:
    """The records of several files, in order; of those that only repeat one another, the last.

    Args:
        results: Files that ``dppmask evaluate`` appends to or prints, one JSON object a line, or run folders
            with a ``results.jsonl``.

    Raises:
        UserError: If a file does not exist, or a line is no record.
    """
    newest: dict[str, Record] = {}
    for name in results:
        path = Path(name) / "results.jsonl" if Path(name).is_dir() else Path(name)
        if not path.is_file():
            raise UserError(f"results {name}: there is no file {path}; dppmask evaluate --run RUN writes one")
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            record = _parse(line, f"{path}, line {number}")
            key = json.dumps([record.get(part) for part in _SAME], sort_keys=True)
            newest.pop(key, None)
            newest[key] = record
    return list(newest.values())


def choose_protocol(records: Sequence[Record], protocol: str | None = None) -> tuple[str, list[Record]]:
    """A protocol and its records; None = the only one there is.

    Raises:
        UserError: If there are none, or several protocols and none was chosen.
    """
    names = list(dict.fromkeys(record["protocol"] for record in records))
    if not names:
        raise UserError("results hold no records; evaluate something first")
    if protocol is None and len(names) > 1:
        raise UserError(f"protocol must be given where there are several, one of {', '.join(names)}")
    chosen = names[0] if protocol is None else protocol
    if chosen not in names:
        raise UserError(f"protocol {chosen} is not among the results; {nearest(chosen, names)}")
    return chosen, [record for record in records if record["protocol"] == chosen]


def draw_records(protocol: str, records: Sequence[Record], *, figure: Figure | None = None) -> Figure:
    """The figure of a protocol: function ``draw`` of the module here that has its name in snake case.

    ``MultiLabel`` is drawn by ``dppmask.figures.multi_label.draw(records, figure=None)``; a new figure is a
    new module, and nothing else. A protocol without one has its metrics drawn beside their baselines.

    Args:
        protocol: Name of the protocol.
        records: All of that protocol, at least one, in the order of the files.
        figure: Where to draw; a new one by default.
    """
    path = f"dppmask.figures.{snake_case(protocol)}"
    module = importlib.import_module(path) if importlib.util.find_spec(path) else scores
    return getattr(module, "draw", scores.draw)(records, figure=figure)


def snake_case(name: str) -> str:
    """The module that belongs to a class.

    >>> snake_case("MaskStatistics"), snake_case("KNN")
    ('mask_statistics', 'knn')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _parse(line: str, place: str) -> Record:
    try:
        record = json.loads(line)
        if record["protocol"] and isinstance(record["tables"], dict):
            return record
    except (json.JSONDecodeError, KeyError, TypeError):
        pass
    raise UserError(f"{place} is no record of an evaluation; expected what dppmask evaluate prints")
