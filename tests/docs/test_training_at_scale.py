"""Every command of the page has options that exist and go together."""

import re
import shlex
from pathlib import Path

import pytest
from torch.distributed.run import parse_args

from dppmask import cli
from dppmask.commands.parser import OptionParser
from dppmask.training.run import pretrain

PAGE = Path(__file__).parents[2] / "docs" / "training-at-scale.md"
BLOCKS = [
    shlex.split(block.replace("\\\n", " "), comments=True)
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
]
TRAININGS = [words for words in BLOCKS if "pretrain" in words]
TABLES = [words[1:] for words in BLOCKS if words[:2] == ["dppmask", "reproduce"]]


@pytest.mark.parametrize("words", TRAININGS, ids=["one machine", "torchrun", "slurm"])
def test_trainings_are_understood(words):
    options = words[words.index("dppmask") + 2 :]
    parsed = OptionParser("dppmask pretrain", pretrain, skip={"callbacks"}).parse(options)
    assert parsed["devices"] == 8


def test_torchrun_leaves_our_options_to_us():
    (words,) = (words for words in TRAININGS if words[0] == "torchrun")
    parsed = parse_args(words[1:])
    assert (parsed.module, parsed.nproc_per_node, parsed.training_script) == (True, "8", "dppmask")
    assert parsed.training_script_args == words[words.index("dppmask") + 1 :]


def test_tables_are_planned(capsys, monkeypatch):
    monkeypatch.setattr("dppmask.reproduce.plan._flops", lambda unit: 1e9)  # counting takes a while
    assert [words[1] for words in TABLES] == ["table1", "table1"]
    for words in TABLES:
        assert cli.main([*words, *([] if "--plan" in words else ["--plan"])]) == 0
        assert "table1: MAE with different masks" in capsys.readouterr().out
