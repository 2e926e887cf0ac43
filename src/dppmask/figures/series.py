"""What several evaluations are called where they stand side by side."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def source_of(record: Record) -> str:
    """Where the evaluated encoder comes from."""
    return str(record["subject"]["source"] or "encoder")


def series_names(records: Sequence[Record], source: Callable[[Record], str] = source_of) -> list[str]:
    """What each evaluation is called: its source, and the seed where several have the same source."""
    sources = [source(record) for record in records]
    return [
        name if sources.count(name) == 1 else f"{name}, seed {record['seed']}"
        for name, record in zip(sources, records, strict=True)
    ]
