"""Records are kept for the pictures that want them, before their cells, and drawn in the report."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dppmask.errors import UserError
from dppmask.reproduce import pool, runner
from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import experiment_of
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.plan import plan, scorings
from dppmask.reproduce.report import pictures, write_reports
from dppmask.reproduce.runner import missing, run_units
from dppmask.reproduce.units import job_of, merged

WANTED = {"caption": "What is to be seen.", "evaluation": "knn"}
FAKE = str(Path(__file__).with_name("fake_worker.py"))


@pytest.fixture
def job(content, scale):
    """k-NN of both rows and seeds, of which only the row "dpp" has a picture."""
    content["pictures"] = [WANTED | {"rows": ["dpp"]}]
    return job_of(experiment_of("figure0", content, where=""), scale)


@pytest.fixture
def plain(job, scale):
    """The same without pictures."""
    return job_of(replace(job.experiment, pictures=()), scale)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """``work(jobs)`` runs them with workers that measure nothing."""
    trouble = tmp_path / "trouble.json"
    trouble.write_text("{}")
    monkeypatch.setattr(pool, "COMMAND", [sys.executable, FAKE, str(trouble)])

    def go(*jobs):
        cells = Cells(tmp_path / "results" / "cells.jsonl")
        return run_units(merged(jobs), cells, Machine(tmp_path / "work")), cells

    return go


def recorded(job):
    return {
        (row, seed, found.name)
        for (row, seed), unit in job.units.items()
        for found in unit.evaluations.values()
        if found.recorded
    }


def kept(tmp_path):
    return {path.stem for path in (tmp_path / "results" / "records").glob("*")}


def test_the_record_of_the_first_seed_is_wanted(job, content, scale):
    assert recorded(job) == {("dpp", 0, "knn")}
    del content["pictures"][0]["rows"]
    every = experiment_of("figure0", content, where="")
    assert recorded(job_of(every, scale)) == {("random", 0, "knn"), ("dpp", 0, "knn")}
    assert recorded(job_of(every, replace(scale, seeds=(7, 3)))) == {("random", 7, "knn"), ("dpp", 7, "knn")}


def test_keys_do_not_depend_on_pictures(job, plain):
    assert recorded(plain) == set()
    for place, unit in plain.units.items():
        assert (job.units[place].key, *job.units[place].evaluations) == (unit.key, *unit.evaluations)


def test_a_record_is_wanted_whoever_else_wants_the_cell(job, plain):
    for jobs in ([job, plain], [plain, job]):
        wanted = [e for unit in merged(jobs) for e in unit.evaluations.values() if e.recorded]
        assert [evaluation.key for evaluation in wanted] == [job.evaluation("dpp", "knn", 0).key]


def test_pictures_alone_take_one_seed_and_no_column(content, scale, tmp_path):
    del content["columns"]
    for row in content["rows"].values():
        del row["paper"]
    content["pictures"] = [WANTED]
    job = job_of(experiment_of("figure0", content, where=""), scale)
    assert {seed for _, seed in job.units} == {0}
    assert recorded(job) == {("random", 0, "knn"), ("dpp", 0, "knn")}
    text = write_reports([job], scale, Cells(tmp_path / "none.jsonl"), tmp_path).read_text()
    assert "0 of 4 cells are measured" in text
    assert "<table" not in text


def test_swept_rows_have_a_picture_each(content, scale):
    content["sweep"] = "mask_ratio"
    content["pictures"] = [WANTED | {"rows": ["dpp"]}]
    job = job_of(
        experiment_of("figure0", content, where=""), replace(scale, sweeps={"mask_ratio": (0.5, 0.9)})
    )
    assert recorded(job) == {("dpp@0.5", 0, "knn"), ("dpp@0.9", 0, "knn")}


def test_what_a_scale_does_not_list_is_not_wanted(content, scale, tmp_path):
    content["pictures"] = [WANTED | {"evaluation": "finetune"}]
    job = job_of(experiment_of("figure0", content, where=""), scale)
    assert recorded(job) == set()
    assert pictures(job, Cells(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([WANTED | {"rows": ["dp"]}], "t.yaml: picture 1: 'dp' is no row; did you mean dpp?"),
        ([WANTED, {"caption": "x"}], "t.yaml: picture 2 needs evaluation"),
        ([WANTED | {"evaluation": "training"}], "picture 1: a training leaves no record to draw"),
        ([WANTED | {"title": "x"}], "picture 1 has an unknown key title"),
    ],
)
def test_a_wrong_picture_is_named(content, wanted, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        experiment_of("t", content | {"pictures": wanted}, where="t.yaml")


def test_an_experiment_shows_something(content):
    with pytest.raises(UserError, match=r"t\.yaml needs columns or pictures"):
        experiment_of("t", content | {"columns": {}}, where="t.yaml")


def test_records_stand_before_their_cells_and_without_the_folders_of_the_machine(
    job, work, tmp_path, monkeypatch
):
    orders = []
    add = Cells.add
    monkeypatch.setattr(
        Cells, "add", lambda self, cell: (orders.append((cell["key"], kept(tmp_path))), add(self, cell))[1]
    )
    _, cells = work(job)
    wanted = job.evaluation("dpp", "knn", 0).key
    assert kept(tmp_path) == {wanted}
    assert wanted in dict(orders)[wanted]
    record = cells.record(wanted)
    assert record["tables"] == {"neighbours": [{"rank": 1}]}
    assert str(tmp_path) not in json.dumps(record)
    assert record["subject"]["source"] == runner.RUN
    assert record["settings"]["init_args"]["k"] == [3]
    assert record["command"].startswith("dppmask evaluate")


def test_a_cell_that_lacks_its_record_is_measured_again(job, plain, scale, work, tmp_path):
    work(plain)  # a table measured it, and no picture wanted it
    path = tmp_path / "results" / "cells.jsonl"
    before = path.read_text()
    cells, units = Cells(path), merged([job])
    wanted = job.evaluation("dpp", "knn", 0)
    assert [e for unit in units for e in missing(unit, cells)] == [wanted]
    assert [(cost.name, cost.count) for cost in scorings(units, scale, cells)] == [("knn", 1)]
    (line,) = (
        text
        for text in plan([job], units, scale, cells, Machine(tmp_path)).splitlines()
        if text.strip().startswith("figure0")
    )
    assert line.split()[-2:] == ["8", "7"]

    _, cells = work(job)
    assert kept(tmp_path) == {wanted.key}
    assert path.read_text() == before
    assert not any(missing(unit, cells) for unit in units)


def test_killed_between_record_and_cell_it_measures_that_again(job, work, tmp_path, monkeypatch):
    wanted = job.evaluation("dpp", "knn", 0)
    add = Cells.add

    def killed(self, cell):
        if cell["key"] == wanted.key:
            raise KeyboardInterrupt
        add(self, cell)

    with monkeypatch.context() as patched:
        patched.setattr(Cells, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            work(job)
    cells = Cells(tmp_path / "results" / "cells.jsonl")
    assert kept(tmp_path) == {wanted.key}
    assert not cells.has(wanted)
    assert pictures(job, cells) == []
    shutil.rmtree(tmp_path / "work" / "runs")
    _, cells = work(job)
    assert all(cells.has(evaluation) for evaluation in job.evaluations.values())


def test_the_report_draws_what_is_there(job, scale, work, tmp_path):
    _, cells = work(job)
    (picture,) = pictures(job, cells)
    assert picture.caption == "What is to be seen."
    (axes,) = picture.figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["DPP masks"]
    folder = tmp_path / "results"
    html = write_reports([job], scale, cells, folder)
    assert html.read_text().count("<figure>") == 1
    (image,) = folder.glob("*.png")
    assert f"![What is to be seen.]({image.name})" in html.with_suffix(".md").read_text()

    next((folder / "records").iterdir()).unlink()
    assert pictures(job, cells) == []
    assert "7 of 8 cells are measured" in write_reports([job], scale, cells, folder).read_text()


def test_pictures_of_several_rows_say_whose_they_are(content, scale, work):
    content["pictures"] = [WANTED]
    job = job_of(experiment_of("figure0", content, where=""), scale)
    _, cells = work(job)
    captions = [picture.caption for picture in pictures(job, cells)]
    assert captions == ["random masks: What is to be seen.", "DPP masks: What is to be seen."]
