"""Cells measured once more."""

import json

import pytest

from dppmask import cli
from dppmask.reproduce.recheck import Comparison, relative


@pytest.fixture
def measured_once(own_experiment, tmp_path):
    """The command that filled in an experiment of one's own, its cells, and the file of its trouble."""
    path, trouble = own_experiment
    line = f"reproduce {path} --scale smoke --work {tmp_path / 'work'} --device cpu"
    assert cli.main(line.split()) == 0
    return line, tmp_path / "work" / "smoke" / "cells.jsonl", trouble


def test_what_comes_out_again_agrees(measured_once, capsys):
    line, written, _ = measured_once
    before = written.read_text()
    capsys.readouterr()
    assert cli.main([*line.split(), "--check", '["mine/dpp/0/training"]']) == 0
    out = capsys.readouterr().out
    assert "All 1 agree in every metric." in out
    assert "mine: DPP masks, seed 0" in out
    assert written.read_text() == before


def test_what_comes_out_otherwise_is_an_error_that_shows_both(measured_once, capsys):
    line, written, _ = measured_once
    cells = [json.loads(text) for text in written.read_text().splitlines()]
    cells[0]["metrics"]["loss"] = 1.25
    written.write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    named = f"mine/{'dpp' if 'DPP' in cells[0]['title'] else 'random'}/0/training"
    assert cli.main([*line.split(), "--check", json.dumps([named])]) == 2
    err = capsys.readouterr().err
    assert "1 of 1 cells do not agree" in err
    assert "1.25" in err
    assert "2.0e-01 off" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine/dpp/0/trainin", "did you mean mine/dpp/0/training?"),
        ("mine/dpp/1/training", "check must name cells as EXPERIMENT/ROW/SEED/EVALUATION, got mine/dpp/1"),
    ],
)
def test_unknown_names(measured_once, capsys, name, message):
    assert cli.main([*measured_once[0].split(), "--check", json.dumps([name])]) == 2
    assert message in capsys.readouterr().err


def test_a_cell_that_was_never_measured_cannot_be_checked(measured_once, capsys):
    line, written, _ = measured_once
    written.write_text("")
    assert cli.main([*line.split(), "--check", '["mine/dpp/0/training"]']) == 2
    assert "does not have mine/dpp/0/training" in capsys.readouterr().err


def test_a_failure_is_told(measured_once, capsys):
    line, written, trouble = measured_once
    cell = json.loads(written.read_text().splitlines()[0])
    trouble.write_text(json.dumps({cell["key"]: "fail"}))
    named = f"mine/{'dpp' if 'DPP' in cell['title'] else 'random'}/0/training"
    assert cli.main([*line.split(), "--check", json.dumps([named])]) == 2
    assert f"{cell['title']}, training, failed: no luck" in capsys.readouterr().err


def test_how_far_two_numbers_are_apart():
    assert relative(2.0, 1.0) == relative(1.0, 2.0) == 0.5
    assert relative(0.0, 0.0) == 0.0
    assert relative(None, 1.0) == float("inf")
    same = Comparison({"metrics": {"a": 1.0}}, {"metrics": {"a": 1.0 + 1e-9}})
    other = Comparison({"metrics": {"a": 1.0}}, {"metrics": {"a": 1.0, "b": 0.0}})
    assert same.agrees
    assert not other.agrees
