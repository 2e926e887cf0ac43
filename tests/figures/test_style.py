import os

import matplotlib
import pytest

from dppmask.errors import UserError
from dppmask.figures.style import check_picture_path, new_figure, save_figure, styled

SIGNATURES = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def drawn():
    with styled():
        figure = new_figure(2, 1)
        figure.subplots().plot([0, 1], [0, 1])
    return figure


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_equal_figures_give_equal_files_on_any_day(tmp_path, suffix, monkeypatch):
    files = []
    for day in range(2):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(86400 * day))  # what matplotlib takes for now
        files.append(save_figure(drawn(), tmp_path / f"{day}.{suffix}").read_bytes())
    assert files[0].startswith(SIGNATURES[suffix])
    assert files[0] == files[1]


def test_the_users_settings_change_nothing_and_are_kept(tmp_path):
    plain = save_figure(drawn(), tmp_path / "plain.png").read_bytes()
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 30.0}):
        assert save_figure(drawn(), tmp_path / "other.png").read_bytes() == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.gif", ["out must end with .png, .pdf or .svg", "a.gif"]),
        ("a", ["out must end with"]),
        ("nowhere/a.png", ["there is no folder", "nowhere"]),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_in_one_line(tmp_path, name, words):
    with pytest.raises(UserError) as refused:
        check_picture_path(tmp_path / name)
    assert all(word in str(refused.value) for word in words)
    assert "\n" not in str(refused.value)


def test_a_failed_save_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        save_figure(drawn(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
