"""``dppmask reproduce`` as one types it, with workers that measure nothing."""

import json
from pathlib import Path

import pytest

from dppmask import cli
from dppmask.reproduce.experiments import load_experiment
from dppmask.reproduce.scales import load_scale
from dppmask.reproduce.units import job_of


def test_an_experiment_of_ones_own(own_experiment, tmp_path, capsys):
    path, _ = own_experiment
    line = f"reproduce {path} --scale smoke --work {tmp_path / 'work'} --device cpu"
    assert cli.main(line.split()) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'work' / 'smoke' / 'reproduce-smoke.html'}\n"
    assert "done:   mine: DPP masks, seed 0" in err
    assert "| DPP masks | 1.000 |" in Path(out.strip()).with_suffix(".md").read_text()


def test_failures_are_told_and_the_report_is_written(own_experiment, tmp_path, capsys):
    path, trouble = own_experiment
    key = next(iter(job_of(load_experiment(str(path)), load_scale("smoke")).units["dpp", 0].evaluations))
    trouble.write_text(json.dumps({key: "fail"}))
    line = f"reproduce {path} --scale smoke --work {tmp_path / 'work'} --device cpu"
    assert cli.main(line.split()) == 2
    err = capsys.readouterr().err
    assert "failed: mine: DPP masks, seed 0: no luck" in err
    assert "dppmask reproduce: 1 cells failed, as" in err
    assert "1 of 2 cells are measured" in (tmp_path / "work" / "smoke" / "reproduce-smoke.md").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "name an experiment: table1"),
        ("table22", "there is no experiment 'table22'; did you mean table2?"),
        ("table2 --scale huge", "scale must be one of the shipped ones, got 'huge'"),
        ("table2 --jobs 0", "jobs must be at least 1, got 0"),
        ("table2 --device tpu", "device must be auto, cpu or cuda, got 'tpu'"),
    ],
)
def test_wrong_options_are_one_line(line, message, capsys):
    assert cli.main(["reproduce", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
