"""Every ``dppmask pretrain`` of the page has options that exist and go together."""

import re
import shlex
from pathlib import Path

import pytest

from dppmask.commands.parser import OptionParser
from dppmask.training.run import pretrain

PAGE = Path(__file__).parents[2] / "docs" / "training-at-scale.md"
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["one machine", "torchrun", "slurm"])
def test_commands_are_understood(block):
    words = shlex.split(block.replace("\\\n", " "), comments=True)
    options = words[words.index("dppmask") + 2 :]
    parsed = OptionParser("dppmask pretrain", pretrain, skip={"callbacks"}).parse(options)
    assert parsed["devices"] == 8
