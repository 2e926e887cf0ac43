"""The command at its smallest sizes: what it prints, what it writes, and what it refuses."""

import contextlib
import csv
import importlib.util
import io
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image

from dppmask import cli
from dppmask.bench import ibot_step, step
from dppmask.bench.cases import EXACT, FROM_FEATURES, GREEDY, KERNEL
from dppmask.bench.features import check_equal
from dppmask.bench.inputs import MASKS, STRATEGIES
from dppmask.bench.run import SECTIONS, command_line

TINY = "--quick --device cpu --backbone test_vit --image_size 32 --patch_size 8 --batch_size 2"
FACTS = {
    "date",
    "commit",
    "cpu",
    "cpu_cores",
    "gpu",
    "python",
    "torch",
    "numpy",
    "timm",
    "transformers",
    "dppy",
}
FACTS |= {"device", "threads", "matmul_float32_gflops", "bandwidth_gbs", "command"}
TIMES = {"median_ms", "low_ms", "high_ms", "cpu_ms", "repeats", "warmup", "calls"}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def bench(line: str) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["bench", *line.split()])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bench") / "results"


@pytest.fixture(scope="module")
def outcome(folder) -> Outcome:
    return bench(f"{TINY} --out {folder}")


@pytest.fixture(scope="module")
def rows(outcome, folder) -> dict[str, list[dict[str, str]]]:
    assert outcome.code == 0, outcome.err
    found = {}
    for section in SECTIONS:
        with (folder / f"{section}_cpu.csv").open(newline="") as file:
            found[section] = list(csv.DictReader(file))
    return found


def test_tables_go_to_stdout_and_progress_to_stderr(outcome):
    assert outcome.code == 0, outcome.err
    for title in (
        "A batch of masks",
        "MAE training step",
        "iBOT training step",
        "Class tokens on",
        "Table 9",
        "Memory of a batch",
        "Floor and gap",
    ):
        assert title in outcome.out
    assert "2.7442   0.2609   0.2129" in outcome.out, "the paper's row"
    assert "measurements" not in outcome.out


def test_every_section_leaves_rows_that_say_where_they_come_from(rows):
    for section, found in rows.items():
        assert found, section
        assert found[0].keys() >= FACTS, section
        if section != "memory":
            assert found[0].keys() >= TIMES, section
            assert all(
                float(row["low_ms"]) <= float(row["median_ms"]) <= float(row["high_ms"]) for row in found
            )
    assert rows["step"][0]["command"] == (
        "dppmask bench --backbone [test_vit] --batch_size [2] --device cpu --image_size 32 --patch_size 8 "
        "--quick"
    )


def test_every_task_has_its_rivals(rows):
    who: dict[str, list[str]] = {}
    for row in rows["masks"]:
        if row["threads"] == "1":
            who.setdefault(row["task"], []).append(row["implementation"])
    assert who == {
        KERNEL: ["dppmask", "NumPy loop"],
        GREEDY: ["dppmask", "torch loop", "NumPy loop"],
        FROM_FEATURES: ["dppmask", "NumPy loop"],
        EXACT: ["dppmask", "dppmask spectral", "dppmask rejection", "DPPy"],
        **{task: ["dppmask"] for task in MASKS.values()},
    }


def test_ratio_is_our_time_over_theirs(rows):
    ours = {
        row["task"]: float(row["median_ms"]) for row in rows["masks"] if row["implementation"] == "dppmask"
    }
    for row in rows["masks"]:
        if row["implementation"] == "DPPy":
            expected = ours[row["task"]] / float(row["median_ms"])
            assert float(row["ratio"]) == pytest.approx(expected, rel=0.02)


def test_shares_of_the_step(rows):
    ours = [row for row in rows["step"] if row["implementation"] == "dppmask"]
    assert [row["mask"] for row in ours] == list(STRATEGIES)
    for row in ours:
        share = float(row["mask_ms"]) / float(row["median_ms"])
        assert float(row["share"]) == pytest.approx(share, rel=0.01, abs=1e-4)
    (theirs,) = (row for row in rows["step"] if row["implementation"] == step.RIVAL)
    assert float(theirs["ratio"]) == 1.0
    assert theirs["flops"] == ours[0]["flops"], "equal work"


def test_shares_of_the_ibot_step(rows):
    assert [row["mask"] for row in rows["ibot"]] == list(ibot_step.STRATEGIES)
    for row in rows["ibot"]:
        share = float(row["mask_ms"]) / float(row["median_ms"])
        assert float(row["share"]) == pytest.approx(share, rel=0.01, abs=1e-4)
        assert int(row["crops"]) == 2 * int(row["batch"])


def test_features_are_timed_beside_a_plain_loop(rows):
    ours, theirs = rows["features"]
    assert (ours["implementation"], theirs["implementation"]) == ("dppmask", "timm loop")
    assert ours["images"] == theirs["images"] == "8"
    assert float(theirs["ratio"]) == pytest.approx(
        float(ours["median_ms"]) / float(theirs["median_ms"]), rel=0.02
    )


def test_different_features_are_not_timed():
    with pytest.raises(RuntimeError, match=r"our features and timm's differ by 1; nothing was measured"):
        check_equal(torch.zeros(2, 3), torch.eye(2, 3))


def test_growth_is_measured_in_all_three_directions(rows):
    for panel, column in {"patches": "num_patches", "visible": "num_keep", "batch": "batch"}.items():
        assert len({row[column] for row in rows["scaling"] if row["panel"] == panel}) > 1


def test_pictures_and_summary_are_written(outcome, folder):
    for section in SECTIONS:
        with Image.open(folder / f"{section}_cpu.png") as picture:
            assert picture.width > 1000
    summary = (folder / "summary_cpu.md").read_text()
    assert "| the paper" in summary.replace("*", "")
    assert str(folder) not in summary
    assert {path.name for path in folder.iterdir()} == {
        "summary_cpu.md",
        *(f"{section}_cpu.{kind}" for section in SECTIONS for kind in ("csv", "png")),
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--sections maks", ["sections", "'maks'", "did you mean masks?"]),
        ("--repeats 0", ["repeats must be at least 1", "got 0"]),
        ("--batch_size 0", ["batch_size must be at least 1", "got 0"]),
        ("--mask_ratio 1.5", ["mask_ratio must be in (0, 1)", "1.5"]),
        ("--backbone vit_smal_patch16_224", ["vit_smal_patch16_224", "did you mean vit_small_patch16_224?"]),
        ("--device tpu9", ["device", "tpu9"]),
        ("--device meta", ["device must be 'auto', 'cpu' or 'cuda'", "meta"]),
        ("--repeat 3", ["--repeat", "did you mean repeats?"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_options_take_one_line(options, words):
    code, out, err = bench(f"--quick {options}")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert all(word in err for word in words), err


def test_what_is_not_installed_is_left_out_with_a_line(monkeypatch):
    found = importlib.util.find_spec
    hidden = ("dppy", "transformers")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else found(name))
    code, out, err = bench(f"{TINY} --sections masks --sections step")
    assert code == 0, err
    for name in hidden:
        line = f"{name} is not installed: left out; pip install {name} brings it in\n"
        assert line in out
        assert line in err
    assert "DPPy   " not in out
    assert "over transformers" in out, "the column stays"


def test_the_command_line_leaves_out_defaults_and_the_folder():
    assert command_line({"device": "auto", "out": "/somewhere", "quick": True}) == "dppmask bench --quick"
    assert command_line({"image_size": (32, 48)}) == "dppmask bench --image_size [32,48]"
