"""Every command and every piece of Python in the README runs, in order, in one folder."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dppmask import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# the README's trainings at the size of a test
SHORT = (
    "--epochs 1 --warmup_epochs 0 --batch_size 4 --num_workers 0 --backbone test_vit --image_size 32 "
    "--method.decoder_depth 1 --method.decoder_embed_dim 32 --method.decoder_num_heads 2"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[str]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.split()[:1] == [program]]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of small noisy photographs in two classes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{index}.png")


def test_every_dppmask_command_runs(photos, capsys):
    assert len(commands("dppmask")) >= 8
    for line in commands("dppmask"):
        arguments = shlex.split(line)[1:]
        if arguments[0] == "pretrain" and "--resume" not in arguments:
            arguments += shlex.split(SHORT)
        assert cli.main(arguments) == 0, f"{line}\n{capsys.readouterr().err}"
    for left in ("runs/photos/encoder/model.safetensors", "masks.png", "photos.npz", "encoder/config.json"):
        assert Path(left).is_file(), left


def test_every_make_target_exists_and_is_run_by_ci():
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    for line in commands("make"):
        target = shlex.split(line)[1]
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), line
        assert re.search(rf"^make {target}\b", ci, flags=re.MULTILINE) or target == "bench", line


def test_python_runs():
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


def test_no_other_program_is_shown_as_a_command():
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    assert {line.split()[0] for line in lines} <= {"dppmask", "make"}


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
