"""Cells add up: over crashes in the middle of a line, and over runners that share a file."""

import json
import threading

import pytest

from dppmask.errors import UserError
from dppmask.reproduce.cells import Cells, locked


def test_what_is_added_is_there_for_the_next(tmp_path):
    path = tmp_path / "results" / "cells.jsonl"
    Cells(path).add({"key": "a", "metrics": {"top1": 0.1 + 0.2}})
    assert Cells(path)["a"]["metrics"] == {"top1": 0.1 + 0.2}
    assert "b" not in Cells(path)
    assert Cells(path).get("b") is None


def test_a_line_that_a_crash_cut_off_counts_as_absent_and_goes(tmp_path):
    path = tmp_path / "cells.jsonl"
    path.write_text('{"key": "a"}\n{"key": "b", "metr')
    cells = Cells(path)
    assert "a" in cells
    assert "b" not in cells
    cells.add({"key": "c"})
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "c"]


def test_a_finished_line_that_is_no_cell_is_named(tmp_path):
    path = tmp_path / "cells.jsonl"
    path.write_text('{"key": "a"}\n{"nokey": 1}\n')
    with pytest.raises(UserError, match="line 2 is no cell"):
        Cells(path)


def test_runners_that_share_a_file_lose_nothing_and_repeat_nothing(tmp_path):
    path = tmp_path / "cells.jsonl"

    def work(number):
        cells = Cells(path)  # each looks at the file now, and not again
        for index in range(20):
            cells.add({"key": str(index), "by": number})

    threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert sorted(keys, key=int) == [str(index) for index in range(20)]


def test_a_folder_is_held_once(tmp_path):
    with locked(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path, patience=0.0):
        pass
    with locked(tmp_path, patience=0.0):
        pass


def test_a_full_disk_leaves_the_old_cells(tmp_path, full_disk):
    path = tmp_path / "cells.jsonl"
    Cells(path).add({"key": "a"})
    with full_disk(200), pytest.raises(UserError, match="the disk is full"):
        Cells(path).add({"key": "b", "notes": "x" * 1000})
    assert "a" in Cells(path)
    assert "b" not in Cells(path)
