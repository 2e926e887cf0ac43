"""Experiments and scales are read strictly, and every shipped pair of them fits together."""

import shlex
from dataclasses import replace

import pytest

from dppmask.commands.parser import OptionParser
from dppmask.errors import UserError
from dppmask.evaluation.run import evaluate
from dppmask.reproduce import scales
from dppmask.reproduce.experiments import experiment_of, load_experiment
from dppmask.reproduce.reading import experiment_names
from dppmask.reproduce.request import Request, pretraining
from dppmask.reproduce.scales import load_scale, scale_names
from dppmask.reproduce.units import job_of, merged
from dppmask.specs import build, describe
from dppmask.training import settings
from dppmask.training.run import pretrain

PRETRAIN = OptionParser("", pretrain, skip={"callbacks"})
EVALUATE = OptionParser("", evaluate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("rows"), "t.yaml needs rows"),
        (lambda c: c.update(titel="x"), "unknown key titel; did you mean title?"),
        (lambda c: c["rows"]["dpp"].update(paper={"kn": 1.0}), "paper names no column kn; did you mean knn?"),
        (lambda c: c.update(baseline="randm"), "baseline 'randm' is no row; did you mean random?"),
        (lambda c: c["columns"]["knn"].pop("metric"), "column knn needs metric"),
        (lambda c: c["rows"].update(dpp=3), "row dpp must be a mapping, got 3"),
        (lambda c: c["rows"]["dpp"].update(cited=True), "row dpp is cited, so nothing is measured"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(content, change, message):
    change(content)
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        experiment_of("t", content, where="t.yaml")


def test_a_wrong_option_is_named_with_its_row(content, scale):
    content["rows"]["dpp"]["pretrain"]["mask_ration"] = 0.5
    with pytest.raises(UserError, match=r"table0, row dpp: pretrain has no option mask_ration; did you mean"):
        job_of(experiment_of("table0", content, where=""), scale)


def test_names_that_do_not_exist():
    with pytest.raises(UserError, match="no experiment 'table22'; did you mean table2"):
        load_experiment("table22")
    with pytest.raises(UserError, match=r"no experiment 'missing/table2\.yaml'"):
        load_experiment("missing/table2.yaml")
    with pytest.raises(
        UserError, match="scale must be one of the shipped ones, got 'smok'; did you mean smoke"
    ):
        load_scale("smok")


@pytest.mark.parametrize("scale", scale_names())
@pytest.mark.parametrize("name", experiment_names())
def test_shipped_commands_say_what_is_run(name, scale):
    """What the report shows as a command, read by the command line itself, gives the options of the unit."""
    job = job_of(load_experiment(name), load_scale(scale))
    units = [unit for (_, seed), unit in job.units.items() if seed == 0]
    for unit in units if scale == "smoke" else units[-1:]:  # rows differ alike at every scale
        if unit.request is not None:
            typed = PRETRAIN.parse(shlex.split(unit.request.command("", run="r")))
            del typed["run"]
            assert settings.plain(typed).items() <= pretraining(unit.request).items()
            assert typed.keys() == unit.request.given().keys()
        for evaluation in unit.evaluations.values():
            if evaluation.request is not None:
                typed = EVALUATE.parse(evaluation.request.arguments())
                assert (
                    describe(typed["data"])["init_args"].items()
                    >= evaluation.options["data"].get("init_args", {}).items()
                )
                assert describe(typed["protocol"]) == describe(build(evaluation.options["protocol"]))


def test_units_are_shared_and_their_evaluations_united(content, scale, experiment):
    other = dict(content, columns={"loss": content["columns"]["loss"]})
    other["rows"] = {"only": {"title": "the same run", "pretrain": {"config": "masks/dpp"}}}
    del other["baseline"]
    jobs = [job_of(experiment_of("other", other, where=""), scale), job_of(experiment, scale)]
    units = merged(jobs)
    assert [unit.seed for unit in units] == [0, 0, 1, 1]
    assert jobs[0].units["only", 0].key == jobs[1].units["dpp", 0].key
    shared = next(unit for unit in units if unit.key == jobs[0].units["only", 0].key)
    assert sorted(e.name for e in shared.evaluations.values()) == ["knn", "training"]


def test_a_sweep_has_every_row_at_every_value(content, scale):
    content["sweep"] = "mask_ratio"
    ratios = {"mask_ratio": (0.5, 0.9)}
    swept = job_of(experiment_of("figure0", content, where=""), replace(scale, sweeps=ratios))
    assert list(swept.experiment.rows) == ["random@0.5", "dpp@0.5", "random@0.9", "dpp@0.9"]
    assert swept.experiment.rows["dpp@0.9"].baseline == "random@0.9"
    assert swept.units["dpp@0.9", 1].options["mask_ratio"] == 0.9
    with pytest.raises(UserError, match="scale mini has no values for mask_ratio, which figure0 sweeps"):
        job_of(experiment_of("figure0", content, where=""), scale)


def test_rows_that_are_cited_are_no_work(content, scale):
    content["rows"]["amt"] = {"title": "AMT", "cited": True, "paper": {"knn": 41.0}}
    job = job_of(experiment_of("t", content, where=""), scale)
    assert {name for name, _ in job.units} == {"random", "dpp"}
    amt = job.experiment.rows["amt"]
    assert all(job.address(amt, column, 0) is None for column in job.experiment.columns.values())


def test_ablations_train_what_table_1_trains_once():
    ablations, table1 = (job_of(load_experiment(n), load_scale("tiny")) for n in ("ablations", "table1"))
    for row in ("random", "dpp_0.3"):
        assert ablations.units[row, 0].key == table1.units[row, 0].key
    assert len({unit.key for unit in ablations.units.values()}) == len(ablations.units)


def test_own_is_what_the_run_has(content, scale):
    masks = {"masks": ["own"], "mask_ratio": "own"}
    protocol = {"class_path": "dppmask.evaluation.mask_statistics.MaskStatistics", "init_args": masks}
    scenes = {"class_path": "dppmask.data.scenes.Scenes", "init_args": {"size": "own"}}
    asked = Request((), {"protocol": protocol, "data": scenes})
    scale = replace(scale, evaluate={"masks": asked})
    content["columns"] = {"lost": {"title": "lost", "evaluation": "masks", "metric": "{mask}/objects_lost"}}
    for row in content["rows"].values():
        del row["paper"]
    job = job_of(experiment_of("t", content, where=""), scale)
    unit = job.units["dpp", 0]
    (found,) = (e for e in unit.evaluations.values() if e.request)
    arguments = found.options["protocol"]["init_args"]
    assert (arguments["masks"], arguments["mask_ratio"]) == ([unit.options["mask"]], 0.75)
    assert found.options["data"]["init_args"]["size"] == 32
    column = job.experiment.columns["lost"]
    assert job.address(job.experiment.rows["dpp"], column, 0).metric == "DPPMask/objects_lost"

    content["rows"]["dpp"]["pretrain"]["mask_ratio"] = [0.1, 0.5]
    with pytest.raises(
        UserError, match=r"protocol.mask_ratio cannot be the run's own, which is \[0.1, 0.5\]"
    ):
        job_of(experiment_of("t", content, where=""), scale)


def test_an_evaluation_may_differ_for_one_method():
    scale = load_scale("tiny")
    rate = {
        method: build(request.given()["protocol"]).base_lr
        for method in ("ibot", "mae", "mae_1k")
        for request in [scale.evaluation("finetune" if method != "mae_1k" else "finetune_1k", method)]
    }
    assert rate == {"ibot": 2e-3, "mae": 8e-3, "mae_1k": 8e-3}
    assert scale.evaluation("finetune", None) == scale.evaluate["finetune"]


def test_what_differs_for_an_unknown_method_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "own.yaml"
    path.write_text("about: x\nseeds: [0]\npretrain: {mae: {}}\nevaluate: {knn: {for: {mea: {}}}}\n")
    monkeypatch.setattr(scales, "shipped_recipes", lambda: {"paper/scales/own": path})
    with pytest.raises(UserError, match="for of knn has an unknown key mea; did you mean mae"):
        load_scale("own")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("evaluate: {knn: {after: finetun}, finetune: {}}", "after of knn: did you mean finetune"),
        (
            "evaluate: {knn: {}}\nchoices: {tabel1: [x]}",
            "choices has an unknown key tabel1; did you mean table1",
        ),
    ],
)
def test_names_in_a_scale_are_checked(entry, message, tmp_path, monkeypatch):
    path = tmp_path / "own.yaml"
    path.write_text(f"about: x\nseeds: [0]\npretrain: {{mae: {{}}}}\n{entry}\n")
    monkeypatch.setattr(scales, "shipped_recipes", lambda: {"paper/scales/own": path, "paper/table1": path})
    with pytest.raises(UserError, match=message):
        load_scale("own")


def test_what_a_scale_chose_stands_in_its_experiments():
    tiny, paper = (job_of(load_experiment("table4"), load_scale(name)) for name in ("tiny", "paper"))
    assert any("Not fine-tuned" in choice for choice in tiny.experiment.choices)
    assert not any("Not fine-tuned" in choice for choice in paper.experiment.choices)


def test_the_backgrounds_of_the_paper_fine_tune_first():
    for unit in job_of(load_experiment("table4"), load_scale("paper")).units.values():
        wanted = [one for one in unit.evaluations.values() if one.name == "backgrounds"]
        assert [one.name for one in unit.with_what_they_need(wanted)] == ["finetune", "backgrounds"]


def test_masks_that_are_not_built_stand_in_table_3():
    rows = load_experiment("table3").rows
    assert {name: row.paper["finetune"] for name, row in rows.items() if row.cited} == {
        "amt": 82.8,
        "semmae": 83.3,
    }
