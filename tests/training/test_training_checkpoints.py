import os
import pickle

import pytest
import torch

from dppmask.errors import UserError
from dppmask.rng import fold_in
from dppmask.training.checkpoints import LAST, AtomicCheckpointIO, newest, read_checkpoint


@pytest.fixture
def content():
    return {"state_dict": {"w": torch.rand(64, 64, generator=fold_in(0))}, "loops": {"step": 3}}


def test_checkpoint_comes_back(tmp_path, content):
    io = AtomicCheckpointIO()
    io.save_checkpoint(content, tmp_path / LAST)
    loaded = io.load_checkpoint(tmp_path / LAST)
    assert loaded["loops"] == content["loops"]
    assert torch.equal(loaded["state_dict"]["w"], content["state_dict"]["w"])
    io.remove_checkpoint(tmp_path / LAST)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_checkpoint_is_one_line_that_names_the_file_and_a_way_out(tmp_path, content, share):
    io, path = AtomicCheckpointIO(), tmp_path / LAST
    io.save_checkpoint(content, path)
    io.save_checkpoint(content, tmp_path / "epoch_0020.ckpt")
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(UserError, match=r"last\.ckpt is damaged.*epoch_0020\.ckpt") as error:
        io.load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / LAST)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / LAST).write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"state_dict": Trap()}, tmp_path / "zip.ckpt")
    for name in (LAST, "zip.ckpt"):
        with pytest.raises(UserError, match="damaged"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_full_disk_keeps_the_previous_checkpoint(tmp_path, content, full_disk):
    io, path = AtomicCheckpointIO(), tmp_path / LAST
    io.save_checkpoint(content, path)
    larger = {"state_dict": {"w": torch.zeros(1024, 1024)}}
    with full_disk(1_000_000), pytest.raises(UserError, match=r"disk is full.*intact") as error:
        io.save_checkpoint(larger, path)
    assert "\n" not in str(error.value)
    assert torch.equal(io.load_checkpoint(path)["state_dict"]["w"], content["state_dict"]["w"])
    assert os.listdir(tmp_path) == [LAST]


def test_newest_prefers_last_and_falls_back_to_the_latest_kept(tmp_path):
    assert newest(tmp_path) is None
    for name in ("epoch_0020.ckpt", "epoch_0100.ckpt"):
        (tmp_path / name).touch()
    assert newest(tmp_path) == tmp_path / "epoch_0100.ckpt"
    (tmp_path / LAST).touch()
    assert newest(tmp_path) == tmp_path / LAST
