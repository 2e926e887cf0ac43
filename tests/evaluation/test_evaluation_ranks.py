"""Two processes that evaluate together find what one finds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from coloured_images import Coloured, tiny_encoder
from evaluation_ranks_script import records

from dppmask.errors import UserError
from dppmask.evaluation import ranks
from dppmask.evaluation.knn import KNN
from dppmask.evaluation.run import evaluate
from two_ranks import run_on_two_ranks

SCRIPT = Path(__file__).with_name("evaluation_ranks_script.py")
FOUND = ("protocol", "metrics", "standard_errors", "baselines", "tables", "notes", "seed")


def test_two_ranks_find_what_one_finds(tmp_path):
    run_on_two_ranks(SCRIPT, tmp_path)
    both = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for one, *others in zip(records(devices=1), *both, strict=True):
        for other in others:
            assert other["compute"]["ranks"] == 2
            assert {name: other[name] for name in FOUND} == {name: one[name] for name in FOUND}


def test_the_command_line_starts_the_ranks_and_prints_one_result(tmp_path):
    data = "--data Scenes --data.size 32 --data.task single --data.train_size 12 --data.val_size 6"
    line = f"evaluate --run test_vit --image_size 32 --protocol KNN --protocol.k [2] {data} --device cpu"
    outputs = []
    for devices in ("", " --devices 2"):
        command = [sys.executable, "-m", "dppmask", *(line + devices).split()]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        outputs.append([json.loads(record) for record in finished.stdout.splitlines()])
    (one,), (two,) = outputs
    assert two["metrics"] == one["metrics"]
    assert (one["compute"]["ranks"], two["compute"]["ranks"]) == (1, 2)


@pytest.mark.parametrize(("number", "per_batch", "size"), [(10, 4, 2), (3, 4, 2), (0, 4, 3), (17, 1, 4)])
def test_shares_are_whole_batches_and_leave_nothing_out(monkeypatch, number, per_batch, size):
    monkeypatch.setattr(ranks, "num_ranks", lambda: size)
    shares = []
    for rank in range(size):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        shares.append(ranks.share_of(number, per_batch))
    assert [i for share in shares for i in share] == list(range(number))
    assert all(share.start % per_batch == 0 for share in shares if share)


@pytest.mark.parametrize("option", ["devices", "num_nodes"])
def test_numbers_of_devices_out_of_range(option):
    with pytest.raises(UserError, match=f"{option} must be at least 1, got 0"):
        evaluate(tiny_encoder(), KNN(), Coloured(4), **{option: 0})
