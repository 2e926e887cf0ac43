import pytest

from dppmask.figures.option_sweep import Point, draw_option_sweep

PANELS = {
    "linear, %": {
        "random": [Point(0.9, 50.0, 2.0), Point(0.5, 60.0, 1.0)],
        "DPP": [Point(0.5, 62.0, 1.5), Point(0.9, 58.0, 0.5)],
    },
    "fine-tuned, %": {"random": [Point(0.5, 80.0, 0.0)]},
}


def test_lines_go_through_the_means_in_order_with_bars_of_one_deviation():
    figure = draw_option_sweep(PANELS, option="mask ratio")
    first, second = figure.axes
    random, dpp = first.containers
    assert random.lines[0].get_ydata().tolist() == [60.0, 50.0]
    assert random.lines[0].get_xdata() == pytest.approx([0.5, 0.9], abs=0.01)
    bars = random.lines[2][0].get_segments()
    assert [(bar[0][1], bar[1][1]) for bar in bars] == [(59.0, 61.0), (48.0, 52.0)]
    assert dpp.get_label() == "DPP"
    assert (first.get_xlabel(), first.get_ylabel()) == ("mask ratio", "linear, %")
    assert second.get_xticks().tolist() == [0.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["random", "DPP"]
