"""Two processes talking over gloo against one with doubled accumulation."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dppmask.masks import DPPMask
from two_ranks import run_on_two_ranks

SCRIPT = Path(__file__).with_name("ranks_script.py")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder of the runs of ranks_script.py."""
    folder = tmp_path_factory.mktemp("ranks")
    run_on_two_ranks(SCRIPT, folder)
    return folder


def test_two_ranks_equal_one_with_doubled_accumulation(tiny, two_ranks, weights, lines):
    one = tiny(mask=DPPMask())
    torch.testing.assert_close(weights(two_ranks / "ddp"), weights(one.path), rtol=1e-6, atol=1e-7)
    for actual, expected in zip(lines(two_ranks / "ddp"), lines(one.path), strict=True):
        assert actual == pytest.approx(expected, rel=1e-6)


def test_one_rank_that_is_told_to_stop_stops_all_and_the_run_goes_on(two_ranks, weights, lines):
    interrupted, undisturbed = two_ranks / "stopped-ddp", two_ranks / "ddp"
    assert "told to stop: saving at step 5" in (interrupted / "log").read_text()
    torch.testing.assert_close(weights(interrupted), weights(undisturbed), rtol=0, atol=0)
    assert lines(interrupted) == lines(undisturbed)


def test_sharded_weights_learn_the_same(two_ranks, weights, lines):
    """FSDP2 on the CPU, stopped and resumed. Sums are formed in another order, which AdamW amplifies."""
    sharded, undisturbed = weights(two_ranks / "stopped-fsdp2"), weights(two_ranks / "ddp")
    torch.testing.assert_close(sharded["state_dict"], undisturbed["state_dict"], rtol=1e-3, atol=1e-3)
    losses = [[line["loss"] for line in lines(two_ranks / name)] for name in ("stopped-fsdp2", "ddp")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_command_line_prints_one_result_for_all_ranks(tmp_path):
    data = "--data Scenes --data.size 32 --data.train_size 8 --data.val_size 4"
    model = "--backbone test_vit --image_size 32 --patch_size 8 --method.decoder_embed_dim 16"
    decoder = "--method.decoder_depth 1 --method.decoder_num_heads 2"
    length = "--batch_size 4 --epochs 1 --num_workers 0 --accelerator cpu --devices 2 --strategy ddp"
    line = f"pretrain --run {tmp_path / 'run'} {data} {model} {decoder} {length}"
    finished = subprocess.run(
        [sys.executable, "-m", "dppmask", *line.split()], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout) == (0, f"{tmp_path / 'run'}\n"), finished.stderr
    log = (tmp_path / "run" / "log").read_text().splitlines()
    assert all(line[:4].isdecimal() for line in log), log  # every line has its date
