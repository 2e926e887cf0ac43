import json
import os

import pytest
import yaml

from dppmask.errors import UserError
from dppmask.files import (
    append_line,
    remove_unfinished,
    replace_file,
    write_json,
    write_text,
    write_yaml,
)


def test_replace_file_makes_folders_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["b.txt"]


def test_old_content_is_visible_until_the_block_ends(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with replace_file(path) as handle:
        handle.write(b"new")
        handle.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_an_error_keeps_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def interrupted():
        with replace_file(path) as handle:
            handle.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_file_and_folder_are_synced_around_the_rename(tmp_path, monkeypatch):
    events = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("sync"), sync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), rename(a, b)))
    write_text(tmp_path / "file", "x")
    assert events == ["sync", "rename", "sync"]


def test_full_disk_is_one_line_and_the_old_file_is_intact(tmp_path, full_disk):
    path = tmp_path / "file"
    write_text(path, "old")
    with full_disk(1000), pytest.raises(UserError, match=r"disk is full.*intact") as error:
        write_text(path, "x" * 5000)
    assert "\n" not in str(error.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_full_disk_while_appending(tmp_path, full_disk):
    path = tmp_path / "lines"
    with full_disk(1000), pytest.raises(UserError, match="disk is full"):
        append_line(path, "x" * 5000)


def test_other_errors_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="something else"), replace_file(tmp_path / "file"):
        raise RuntimeError("something else")


def test_remove_unfinished_deletes_only_what_was_being_written(tmp_path):
    (tmp_path / "kept").write_text("x")
    (tmp_path / ".writing-123-last.ckpt").write_text("half")
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]


def test_json_and_yaml_come_back(tmp_path):
    value = {"b": 1.5e-4, "a": [1, None, "τ"], "tiny": 1e-300}
    write_json(tmp_path / "x.json", value)
    write_yaml(tmp_path / "x.yaml", value)
    assert json.loads((tmp_path / "x.json").read_text()) == value
    loaded = yaml.safe_load((tmp_path / "x.yaml").read_text())
    assert loaded == value
    assert list(loaded) == list(value)
