"""``log`` in the run folder: what is said before it, by other ranks, and about unreadable images."""

import logging
import os
import signal

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only
from PIL import Image

from dppmask.data.folder import ImageFolder
from dppmask.errors import UserError
from dppmask.training.trainer import log_file, quiet


@pytest.fixture
def photos(tmp_path):
    """Sixteen images, of which the first by name and another cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(16):
        Image.new("L", (32, 32), 15 * number).save(folder / f"{number:02}.png")
    for number in (0, 5):
        (folder / f"{number:02}.png").write_bytes(b"no image")
    return folder


def test_the_first_file_of_a_folder_is_named_like_any_other(tiny, photos):
    run = tiny(data=ImageFolder(str(photos)), epochs=1).path
    left_out = [line for line in (run / "log").read_text().splitlines() if "image left out" in line]
    assert len(left_out) == 2
    assert "00.png" in left_out[0]
    assert "05.png" in left_out[1]


def test_their_number_is_told_at_the_end(tiny, photos, capsys):
    run = tiny(data=ImageFolder(str(photos)), epochs=1).path
    assert "images that could not be read: 2 of 16" in (run / "log").read_text()
    assert capsys.readouterr().err.endswith(f"images that could not be read: 2; {run / 'log'} names them\n")


def test_their_number_is_told_when_the_training_stops(tiny, photos, capsys, interrupt):
    stop = interrupt("on_train_batch_end", 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert not tiny(data=ImageFolder(str(photos)), callbacks=[stop]).finished
    assert "images that could not be read:" in capsys.readouterr().err


def test_nothing_is_told_where_all_can_be_read(tiny, capsys):
    run = tiny(epochs=1).path
    assert "could not be read" not in (run / "log").read_text() + capsys.readouterr().err


def test_a_folder_of_junk_says_why_the_first_file_is_unreadable(tiny, photos, tmp_path):
    for path in photos.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of the 16 images .*00\.png: cannot identify image file"):
        tiny(data=ImageFolder(str(photos)))
    assert list(tmp_path.iterdir()) == [photos]


def test_another_rank_writes_its_warnings_beside_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with quiet(log_file(tmp_path)):
        logging.getLogger("dppmask.data").info("as usual")
        logging.getLogger("dppmask.data").warning("image left out")
    assert [path.name for path in tmp_path.iterdir()] == ["log-rank-1"]
    (line,) = (tmp_path / "log-rank-1").read_text().splitlines()
    assert line.endswith("WARNING image left out")


def test_a_banner_takes_one_line(tmp_path):
    with quiet(log_file(tmp_path)):
        logging.getLogger("lightning.pytorch").info("-----\nbackend=gloo\n  2 processes\n-----\n")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("INFO backend=gloo 2 processes")
