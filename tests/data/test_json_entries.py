"""Entries of large JSON files: what they say, where they stand, and where a damaged file is damaged."""

import json

import pytest

from dppmask.data.json_entries import json_entries, read_entry
from dppmask.errors import UserError

CONTENT = {
    "info": {"year": 2014, "list": [1, 2]},
    "images": [{"id": 1, "name": 'a, ] } " \\ é 𝄞'}, {"id": 2}],
    "numbers": [1, -2.5e3, None, True, "x", []],
    "empty": [],
    "last": 7,
}


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_entries_are_those_of_the_json_module(tmp_path, options):
    path = tmp_path / "a.json"
    path.write_bytes(f" \n{json.dumps(CONTENT, **options)}\n".encode())
    expected = [
        (key, entry)
        for key, value in CONTENT.items()
        for entry in (value if isinstance(value, list) else [value])
    ]
    entries = list(json_entries(path))
    assert [(entry.key, entry.value) for entry in entries] == expected
    with path.open("rb") as handle:
        for entry in entries:
            assert read_entry(handle, entry.start, entry.end) == entry.value


def test_an_empty_object_has_no_entries(tmp_path):
    (tmp_path / "a.json").write_text(" { } ")
    assert list(json_entries(tmp_path / "a.json")) == []


@pytest.mark.parametrize("end", range(1, len(json.dumps(CONTENT))))
def test_every_truncation_is_one_line_with_a_position(tmp_path, end):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT)[:end])
    with pytest.raises(UserError, match=r"a\.json is damaged or no JSON: .* at line 1, column \d+") as caught:
        list(json_entries(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"a": 1} x', '{"a": [1,]}', '{"a" 1}', "{1: 2}", '{"a": [1 2]}', '{"a": 1,}']
)
def test_what_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(json.JSONDecodeError):  # except for values that are no objects
        assert isinstance(json.loads(text), dict) or json.loads("")
    with pytest.raises(UserError, match="damaged or no JSON"):
        list(json_entries(tmp_path / "a.json"))


def test_the_line_of_the_damage(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1,\n2,\n  oops]}')
    with pytest.raises(UserError, match="Expecting value at line 3, column 3 of"):
        list(json_entries(tmp_path / "a.json"))


def test_missing_files_and_other_bytes(tmp_path):
    with pytest.raises(UserError, match=r"a\.json cannot be read: No such file"):
        list(json_entries(tmp_path / "a.json"))
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match=r"a\.json cannot be read: .*utf-8"):
        list(json_entries(tmp_path / "a.json"))


def test_a_file_that_changed_meanwhile(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"b": 1}]}')
    (entry,) = json_entries(path)
    path.write_text('{"aaaa": [{"b": 1}]}')
    with path.open("rb") as handle, pytest.raises(UserError, match="was changed while it was in use"):
        read_entry(handle, entry.start, entry.end)
