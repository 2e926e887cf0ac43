from itertools import pairwise

import pytest
from matplotlib.text import Text

from dppmask.data.scene_layout import COLOURS, SHAPES
from dppmask.errors import UserError
from dppmask.figures.multi_label import CONSTANT, draw, group_labels, label_bars
from dppmask.rng import fold_seed

SCENES = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]
MANY = [f"thing{i}" for i in range(80)]


def record(labels, source="runs/a", *, key=0, seed=0, positives=50):
    values = [fold_seed(key, index) % 1000 / 1000 for index in range(len(labels))]
    rows = [
        {"label": label, "average_precision": value, "positives": positives, "share": 0.25}
        for label, value in zip(labels, values, strict=True)
    ]
    mean = sum(values) / len(values)
    return {
        "protocol": "MultiLabel",
        "subject": {"source": source},
        "seed": seed,
        "metrics": {"mAP": mean},
        "standard_errors": {"mAP": 0.01},
        "tables": {"labels": rows},
    }


def precisions(of):
    return {row["label"]: row["average_precision"] for row in of["tables"]["labels"]}


def shown_labels(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


def test_one_evaluation_is_bars_in_a_panel_for_each_shape():
    one = record(SCENES)
    figure = draw([one])
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(SHAPES)
    for axes, shape in zip(figure.axes, SHAPES, strict=True):
        assert shown_labels(axes) == list(COLOURS)
        (bars,) = axes.containers
        expected = [precisions(one)[f"{colour} {shape}"] for colour in COLOURS]
        assert [bar.get_width() for bar in bars] == pytest.approx(expected)
        (constant,) = axes.lines
        assert set(constant.get_xdata()) == {0.25}
        assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first label is on top"
    (legend,) = figure.legends
    mean = 100 * one["metrics"]["mAP"]
    assert [text.get_text() for text in legend.get_texts()] == [f"runs/a: mAP {mean:.1f} ± 1.0 %", CONSTANT]


def test_several_evaluations_are_points():
    records = [record(SCENES), record(SCENES, "runs/b", key=1), record(SCENES, "runs/b", key=2, seed=1)]
    figure = draw(records)
    *lines, constant = figure.axes[1].lines
    assert constant.get_label() == CONSTANT
    for line, one in zip(lines, records, strict=True):
        assert list(line.get_xdata()) == [precisions(one)[f"{colour} sphere"] for colour in COLOURS]
    heights = [tuple(line.get_ydata()) for line in lines]
    assert len(set(heights)) == 3, "equal values stay apart"
    assert all(abs(y - row) < 0.5 for line in heights for row, y in enumerate(line))
    names = [text.get_text().partition(":")[0] for text in figure.legends[0].get_texts()]
    assert names[:3] == ["runs/a", "runs/b, seed 0", "runs/b, seed 1"]


def test_a_long_list_is_sorted_and_stands_in_columns():
    one = record(MANY)
    figure = draw([one])
    shown = [label for axes in figure.axes for label in shown_labels(axes)]
    assert shown == sorted(MANY, key=lambda label: -precisions(one)[label])
    assert [len(shown_labels(axes)) for axes in figure.axes] == [27, 27, 26]


@pytest.mark.parametrize("labels", [SCENES, MANY, [f"a very long name of label {i}" for i in range(9)]])
def test_no_label_overlaps_another(labels):
    figure = draw([record(labels)])
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.get_yticklabels() if isinstance(text, Text)]
        assert all(not one.overlaps(other) for one, other in pairwise(boxes))


def test_groups():
    assert list(group_labels(dict.fromkeys(SCENES, 0.5))) == list(SHAPES)
    coco = {"traffic light": 0.1, "baseball bat": 0.2, "person": 0.9, "teddy bear": 0.3, "bear": 0.4}
    assert group_labels(coco) == {"": ["person", "bear", "teddy bear", "baseball bat", "traffic light"]}
    assert group_labels({"red": 0.1, "green": 0.2}) == {"": ["green", "red"]}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="different images"):
        label_bars([record(SCENES), record(SCENES, positives=51)])
    with pytest.raises(UserError, match="7 evaluations, and at most 6"):
        label_bars([record(SCENES, f"runs/{i}") for i in range(7)])
