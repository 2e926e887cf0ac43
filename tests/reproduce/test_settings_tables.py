"""Tables of settings: what a scale would use, read off the options that its runs get, beside the paper's."""

import pytest

from dppmask.errors import UserError
from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import experiment_of, load_experiment
from dppmask.reproduce.report import section
from dppmask.reproduce.run import reproduce
from dppmask.reproduce.scales import load_scale
from dppmask.reproduce.units import job_of

CONTENT = {
    "title": "Settings",
    "reference": "Table 0",
    "setting": "None.",
    "settings": {"method": "mae", "rows": [{"title": "epochs", "paper": 400, "option": "epochs"}]},
}


def shown(name: str, scale: str) -> dict[str, str]:
    table = job_of(load_experiment(name), load_scale(scale)).settings
    return {row["option"]: row["here"] for row in table.rows if row["option"]}


def test_fine_tuning_at_the_scale_of_the_paper_is_that_of_mae():
    found = shown("table7", "paper")
    assert {name.removeprefix("--protocol."): value for name, value in found.items()} == {
        "base_lr": "0.0005",
        "weight_decay": "0.05",
        "layer_decay": "0.65",
        "batch_size": "1024",
        "warmup_epochs": "5",
        "epochs": "100",
        "cutmix": "1",
        "drop_path": "0.1",
        "mixup": "0.8",
        "label_smoothing": "0.1",
        "rand_augment": "rand-m9-mstd0.5-inc1",
        "random_erasing": "0.25",
    }


def test_a_layered_option_and_a_default_are_shown():
    found = shown("table8", "tiny")
    assert found["--epochs"] == "6", "of the scale, over the recipe's 10"
    assert found["--method.local_scale"] == "0.05, 0.25", "of the class, for no recipe says it"


def test_a_scale_without_the_evaluation_shows_the_paper_alone(content, scale):
    content = {
        **CONTENT,
        "settings": {"method": "mae", "evaluation": "finetune", "rows": CONTENT["settings"]["rows"]},
    }
    assert "finetune" not in scale.evaluate
    table = job_of(experiment_of("t", content, where="t.yaml"), scale).settings
    assert [(row["paper"], row["here"]) for row in table.rows] == [("400", None)]


def test_nothing_is_run_and_the_report_has_the_table(tmp_path):
    path = reproduce(["table7", "table8"], scale="smoke", results=str(tmp_path), work=str(tmp_path / "work"))
    text = (tmp_path / "reproduce-smoke.md").read_text()
    assert path.endswith(".html")
    assert "| batch size | 1024 | 16 | --protocol.batch_size |" in text
    assert not (tmp_path / "cells.jsonl").exists()
    assert "cells are measured" not in text


def test_a_plan_counts_none(tmp_path):
    text = reproduce(["table7"], scale="smoke", plan=True, results=str(tmp_path), work=str(tmp_path))
    assert "table7: Settings of fine-tuning" in text
    assert "Left to do: 0.00 device hours" in text


def test_a_section_without_runs_has_no_commands(tmp_path):
    found = section(job_of(load_experiment("table8"), load_scale("paper")), Cells(tmp_path / "cells.jsonl"))
    assert [type(block).__name__ for block in found.blocks] == ["Text", "Table", "Points", "Points"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["settings"].pop("method"), "settings needs method"),
        (lambda c: c["settings"]["rows"][0].pop("option"), "row 1 needs either option or here"),
        (
            lambda c: c["settings"]["rows"][0].update(option="epoch"),
            "mae has no option epoch; did you mean epochs",
        ),
        (lambda c: c.update(columns={}), "leave out columns or settings"),
        (lambda c: c["settings"].update(method="mea"), "does not say how to pre-train mea; did you mean mae"),
    ],
)
def test_a_wrong_file_is_named_with_its_place(change, message):
    content = {**CONTENT, "settings": {"method": "mae", "rows": [dict(CONTENT["settings"]["rows"][0])]}}
    change(content)
    with pytest.raises(UserError, match=message):
        job_of(experiment_of("t", content, where="t.yaml"), load_scale("smoke"))
