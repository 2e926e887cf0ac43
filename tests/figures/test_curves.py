import json
import math

import pytest
import torch

from dppmask.errors import UserError
from dppmask.figures.curves import draw_curves, load_curves, smooth
from dppmask.figures.style import DPP, RANDOM
from dppmask.rng import fold_in


def lines(seed, count=60):
    noise = torch.randn(count, generator=fold_in(seed)).tolist()
    return [
        {"step": 5 * (i + 1), "epoch": 0, "loss": 1.0 + 0.1 * noise[i], "lr": 1e-4 * i} for i in range(count)
    ]


def test_smoothing_is_a_weighted_mean_of_both_sides():
    steps = [1, 2, 4, 7, 8, 12, 20]
    values = torch.rand(7, generator=fold_in(0), dtype=torch.float64).tolist()
    length = 0.1 * (steps[-1] - steps[0])
    for at, result in zip(steps, smooth(steps, values, reach=0.1), strict=True):
        weights = [math.exp(-abs(at - step) / length) for step in steps]
        expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        assert result == pytest.approx(expected, rel=1e-12)


def test_smoothing_keeps_a_constant_and_calms_noise():
    steps = list(range(500))
    assert smooth(steps, [0.7] * 500) == pytest.approx([0.7] * 500)
    noise = torch.randn(500, generator=fold_in(1), dtype=torch.float64)
    calm = torch.tensor(smooth(steps, noise.tolist()), dtype=torch.float64)
    assert calm.std() < 0.5 * noise.std()
    assert smooth([3], [2.0]) == [2.0]


def test_raw_and_smoothed_loss_and_learning_rate_of_every_run():
    curves = {"random": lines(0), "DPP": lines(1)}
    figure = draw_curves(curves, loss="training loss (unit)")
    above, below = figure.axes
    assert above.get_ylabel() == "training loss (unit)"
    assert (below.get_xlabel(), below.get_ylabel()) == ("optimiser step", "learning rate")
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["random", "DPP"]
    for index, (run, colour) in enumerate(zip(curves.values(), (RANDOM, DPP), strict=True)):
        raw, bold = above.lines[2 * index : 2 * index + 2]
        assert raw.get_ydata() == pytest.approx([line["loss"] for line in run])
        assert raw.get_xdata() == pytest.approx([line["step"] for line in run])
        assert raw.get_alpha() < 0.5
        assert raw.get_color() == bold.get_color() == colour
        assert below.lines[index].get_ydata() == pytest.approx([line["lr"] for line in run])
        low, high = above.get_ylim()
        assert low < min(raw.get_ydata())
        assert high > max(raw.get_ydata())  # nothing is cut off
    assert below.get_ylim()[0] == 0


def test_curves_are_read_from_runs(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(2)))
    assert load_curves({"mine": tmp_path}) == {"mine": lines(2)}


@pytest.mark.parametrize(("content", "words"), [(None, "no run"), ("", "no finished line")])
def test_runs_without_numbers_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=words):
        load_curves({"mine": tmp_path})
