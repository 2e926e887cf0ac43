import pytest

from dppmask.figures.row_dots import draw_row_dots

PANELS = {
    "distance": {"random": [0.2, 0.3], "DPP": [0.4, 0.5]},
    "lost, %": {"DPP": [10.0]},
}


def test_every_seed_and_the_mean_stand_on_the_line_of_their_row():
    figure = draw_row_dots(PANELS)
    first, second = figure.axes
    places = [collection.get_offsets().tolist() for collection in first.collections]
    assert places[0] == [[0.2, 0.0], [0.3, 0.0]]
    assert places[1] == [[pytest.approx(0.25), 0.0]]
    assert places[2] == [[0.4, 1.0], [0.5, 1.0]]
    assert second.collections[0].get_offsets().tolist() == [[10.0, 1.0]]
    assert [text.get_text() for text in first.get_yticklabels()] == ["random", "DPP"]
    assert (first.get_xlabel(), second.get_xlabel()) == ("distance", "lost, %")
    assert first.get_ylim()[0] > first.get_ylim()[1], "the first row is on top"


def test_the_line_is_that_of_the_first_row():
    (line,) = draw_row_dots(PANELS).axes[0].lines
    assert line.get_xdata() == pytest.approx([0.25, 0.25])


def test_axes_begin_at_zero():
    assert all(axes.get_xlim()[0] == 0 for axes in draw_row_dots(PANELS).axes)
