"""The table of all evaluations: what is compared with what. The commands themselves are run by CI."""

import json

import pytest

from dppmask import chain
from dppmask.commands.parser import OptionParser
from dppmask.evaluation.run import evaluate
from dppmask.figures.table import Measured

STEPS = chain.steps(chain.SCALES["smoke"])


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_every_step_is_a_command_of_the_library(step, tmp_path):
    data = chain.Chain(chain.SCALES["smoke"], tmp_path).data(step.task, 8)
    options = OptionParser("", evaluate).parse([*step.arguments(), "--run", "RUN", *data])
    assert options["data"].train_size == 8
    assert options["run"] == "RUN"


def test_every_protocol_has_a_step(tmp_path):
    from dppmask.commands.messages import shipped_names
    from dppmask.evaluation.base import Protocol

    taken = set()
    for step in STEPS:
        arguments = [*step.arguments(), "--run", "RUN", "--data", "Scenes"]
        taken.add(type(OptionParser("", evaluate).parse(arguments)["protocol"]).__name__)
    of_tables = {"ReconstructionLoss", "StepTime", "MaskCost", "VariantExamples"}  # not of one encoder
    assert taken >= set(shipped_names(Protocol)) - of_tables


@pytest.mark.parametrize(
    ("found", "baseline", "estimated", "expected"),
    [
        (Measured(0.50, 0.01), 0.46, False, True),
        (Measured(0.50, 0.01), 0.48, False, False),
        (Measured(0.50, 0.01), 0.46, True, False),  # the difference of two unsure numbers is less sure
        (Measured(0.50, 0.01), 0.45, True, True),
        (Measured(0.50, None), 0.50, False, False),
    ],
)
def test_clears_by_three_standard_errors(found, baseline, estimated, expected):
    assert chain.clears(found, baseline, estimated=estimated) is expected


def test_a_row_names_the_baselines_it_does_not_clear():
    record = {
        "metrics": {"top1": 0.5},
        "standard_errors": {"top1": 0.01},
        "baselines": {
            "chance": {"top1": 0.1},
            "background_only": {"top1": 0.2},
            "ceiling": {"top1": 1.0},
            "raw_pixels": {"top1": 0.49},
            "random_encoder": {"top1": 0.3},
        },
    }
    step = chain.Step("k-NN", "single", {"protocol": "KNN"}, {"top-1": "top1"})
    row = chain.row(step, "top-1", "top1", record)
    assert row == {
        "name": "k-NN: top-1",
        "found": Measured(0.5, 0.01),
        "constant": 0.2,
        "raw_pixels": 0.49,
        "random_encoder": 0.3,
        "clears": "not raw pixels",
    }
    assert "k-NN: top-1" in chain.table([row]).to_text()


def test_what_is_on_record_is_not_evaluated_again(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(chain, "record_of", lambda *arguments: calls.append(arguments) or {"metrics": {}})
    step = STEPS[0]
    assert chain.Chain(chain.SCALES["smoke"], tmp_path).record(step) == {"metrics": {}}
    again = chain.Chain(chain.SCALES["smoke"], tmp_path)
    assert again.record(step) == {"metrics": {}}
    assert len(calls) == 1
    again.record(STEPS[1])
    assert len(calls) == 2
    assert len([json.loads(line) for line in (tmp_path / chain.RECORDS).read_text().splitlines()]) == 2
