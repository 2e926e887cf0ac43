"""``cells.jsonl``: one line for every measurement that is done. Work adds up here, and nowhere else.

Beside it, ``records/KEY.json`` holds the whole record of a measurement that a picture is drawn from.
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dppmask.errors import UserError
from dppmask.files import write_json, write_text
from dppmask.reproduce.units import Evaluation

CELLS, RECORDS = "cells.jsonl", "records"
Cell = dict[str, Any]
Record = dict[str, Any]


class Cells:
    """What is measured, by key. Several runners may share a file: each looks at it again before it adds.

    Args:
        path: The file; it need not exist yet.

    Raises:
        UserError: If a finished line is no cell.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cells: dict[str, Cell] = {}
        self.read()

    def __contains__(self, key: str) -> bool:
        return key in self._cells

    def __getitem__(self, key: str) -> Cell:
        return self._cells[key]

    def get(self, key: str) -> Cell | None:
        """The cell, or None if it is not measured yet."""
        return self._cells.get(key)

    def has(self, evaluation: Evaluation) -> bool:
        """Whether an evaluation is done: its line stands and, where a picture wants it, its record."""
        is_kept = not evaluation.recorded or self._record_path(evaluation.key).exists()
        return evaluation.key in self and is_kept

    def record(self, key: str) -> Record:
        """The record that was kept for pictures; :meth:`has` says whether there is one."""
        return json.loads(self._record_path(key).read_text())

    def keep(self, key: str, record: Record) -> None:
        """Keep a record. Call it before :meth:`add`: a cell whose record was wanted never lacks it then.

        Raises:
            UserError: If the disk is full.
        """
        write_json(self._record_path(key), record)

    def _record_path(self, key: str) -> Path:
        return self.path.parent / RECORDS / f"{key}.json"

    def values(self) -> list[Cell]:
        """All cells, in the order of their keys: which runner was first must not be seen in a report."""
        return [self._cells[key] for key in sorted(self._cells)]

    def read(self) -> None:
        """Look at the file again. A last line without its end was cut off by a crash and counts as absent."""
        text = self.path.read_text() if self.path.exists() else ""
        for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
            try:
                cell = json.loads(line)
                self._cells[cell["key"]] = cell
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{self.path}, line {number} is no cell; mend or delete the line") from None

    def add(self, cell: Cell) -> None:
        """Write a cell, unless another runner was first; a crash leaves the old file or the new one.

        Raises:
            UserError: If the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent):
            self.read()
            if cell["key"] in self._cells:
                return
            self._cells[cell["key"]] = cell
            text = self.path.read_text() if self.path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            write_text(self.path, whole + json.dumps(cell, allow_nan=False) + "\n")


def hardware_of(cell: Cell) -> str:
    """What a cell was measured on."""
    hardware = cell["hardware"]
    if hardware["gpus"]:
        return ", ".join(hardware["gpus"])
    threads = f", {hardware['threads']} threads" if "threads" in hardware else ""
    return f"{hardware['cpu']}, {hardware['cpu_cores']} cores{threads}"


@contextmanager
def locked(path: Path, *, patience: float = math.inf) -> Iterator[int]:
    """Hold a file or folder; it is free again when every process that inherited the descriptor is gone.

    Args:
        path: It exists.
        patience: Seconds to wait for somebody else.

    Raises:
        BlockingIOError: If somebody else holds it for longer.
    """
    descriptor = os.open(path, os.O_RDONLY)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)
