"""JSON files of hundreds of megabytes, entry by entry: in memory are the text and one entry at a time."""

import json
import re
from collections.abc import Generator, Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NamedTuple

from dppmask.errors import UserError

_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


class Entry(NamedTuple):
    """One entry of a list at the top level of the file, or another value there as a whole.

    Attributes:
        key: Of the list or value.
        value: The entry.
        start: Where its text begins in the file, in bytes.
        end: Where it ends.
    """

    key: str
    value: Any
    start: int
    end: int


def json_entries(path: Path) -> Iterator[Entry]:
    """The entries of every list at the top level of a file that holds an object, in the order of the file.

    Raises:
        UserError: If the file is missing, damaged or no such JSON; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}") from None
    characters = num_bytes = 0
    try:
        for key, value, first, last in _entries(text):
            start = num_bytes + len(text[characters:first].encode())
            characters, num_bytes = last, start + len(text[first:last].encode())
            yield Entry(key, value, start, num_bytes)
    except JSONDecodeError as error:
        raise UserError(
            f"{path} is damaged or no JSON: {error.msg} at line {error.lineno}, column {error.colno} "
            f"of {len(text)} characters; fetch it again"
        ) from None


def read_entry(handle: Any, start: int, end: int) -> Any:
    """The value of an entry of a file opened for reading bytes.

    Raises:
        UserError: If it is no longer there.
    """
    handle.seek(start)
    try:
        return json.loads(handle.read(end - start))
    except ValueError:
        raise UserError(f"{handle.name} was changed while it was in use; start again") from None


def fields(path: Path, entry: Entry, *names: str) -> list[Any]:
    """What an entry says under some names.

    Raises:
        UserError: If it lacks one of them.
    """
    if not isinstance(entry.value, dict) or (missing := [name for name in names if name not in entry.value]):
        lacking = missing[0] if isinstance(entry.value, dict) else names[0]
        raise UserError(f"{path}: an entry of {entry.key!r} lacks {lacking!r}: {shortened(entry.value)}")
    return [entry.value[name] for name in names]


def shortened(value: Any) -> str:
    """An entry as it may stand in an error message."""
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _entries(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """Key, value, and the range of characters of each entry."""
    mark, position = _mark(text, 0, "{")
    if text[position : position + 1] == "}":
        mark, position = _mark(text, position, "}")
    while mark != "}":
        key, position = _decode(text, position)
        if not isinstance(key, str):
            raise JSONDecodeError("Expecting a name in double quotes", text, position)
        _, position = _mark(text, position, ":")
        if text[position : position + 1] == "[":
            position = yield from _list_entries(key, text, position)
        else:
            value, end = _decode(text, position)
            yield key, value, position, end
            position = end
        mark, position = _mark(text, position, ",}")
    if position < len(text):
        raise JSONDecodeError("Extra data", text, position)


def _list_entries(key: str, text: str, position: int) -> Generator[tuple[str, Any, int, int], None, int]:
    """The same of one list; returns where it ends."""
    mark, position = _mark(text, position, "[")
    if text[position : position + 1] == "]":
        return position + 1
    while mark != "]":
        value, end = _decode(text, position)
        yield key, value, position, end
        mark, position = _mark(text, end, ",]")
    return position


def _mark(text: str, position: int, choices: str) -> tuple[str, int]:
    """One of these characters, and where the next word begins."""
    position = _skip_space(text, position)
    mark = text[position : position + 1]
    if not mark or mark not in choices:
        expected = " or ".join(f"'{choice}'" for choice in choices)
        raise JSONDecodeError(f"Expecting {expected}", text, position)
    return mark, _skip_space(text, position + 1)


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    assert found is not None  # the pattern matches nothing, too
    return found.end()


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
