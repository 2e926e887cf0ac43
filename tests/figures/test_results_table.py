import xml.etree.ElementTree as ET

import pytest

from dppmask.figures.table import Column, Measured, Table

COLUMNS = [
    Column("name", ""),
    Column("top1", "top-1, %", better="higher", scale=100),
    Column("lost", "lost, %", better="lower", scale=100),
    Column("note", "note | more"),
]


def table(one, other, baseline=None, *, key="top1"):
    rows = [{"name": "one", key: one}, {"name": "other", key: other}]
    return Table(COLUMNS, rows, [] if baseline is None else [{"name": "chance", key: baseline}])


@pytest.mark.parametrize(
    ("one", "other", "baseline", "best"),
    [
        (Measured(0.50, 0.01), Measured(0.40, 0.01), None, 0),
        (Measured(0.40, 0.01), Measured(0.50, 0.01), None, 1),
        (Measured(0.443, 0.01), Measured(0.40, 0.01), None, 0),  # 3.04 standard errors of the difference
        (Measured(0.442, 0.01), Measured(0.40, 0.01), None, None),  # 2.97
        (Measured(0.50, 0.01), Measured(0.40), None, None),  # nobody knows how sure
        (Measured(0.50, 0.01), 0.40, None, None),
        (Measured(0.50, 0.01), None, None, None),  # nothing to beat
        (Measured(0.50, 0.01), Measured(0.40, 0.01), 0.49, None),  # not clearly better than a baseline
        (Measured(0.50, 0.01), Measured(0.40, 0.01), 0.10, 0),
        (Measured(0.50, 0.01), Measured(0.40, 0.01), Measured(0.45, 0.05), None),
    ],
)
def test_the_best_is_marked_only_where_it_is_clear(one, other, baseline, best):
    assert table(one, other, baseline).best(COLUMNS[1]) == best


def test_less_can_be_better_and_no_direction_marks_nothing():
    lost = table(Measured(0.2, 0.01), Measured(0.02, 0.01), key="lost")
    assert lost.best(COLUMNS[2]) == 1
    assert lost.best(Column("lost", "lost")) is None


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Measured(0.1234, 0.0056), "12.3 ± 0.6"),
        (Measured(0.5), "50.0"),
        (1, "100.0"),
        ("n/a", "n/a"),
        (None, "–"),
    ],
)
def test_cells_show_mean_and_standard_error(cell, text):
    assert COLUMNS[1].show(cell) == text


FULL = Table(
    COLUMNS,
    [
        {"name": "a & b", "top1": Measured(0.7, 0.01), "lost": Measured(0.1, 0.1), "note": "x|y"},
        {"name": "c", "top1": Measured(0.5, 0.01), "lost": Measured(0.2, 0.1)},
    ],
    [{"name": "chance", "top1": 0.1}],
    title="Results <1>",
    note="± is a standard error.",
)


def test_text_separates_baselines_and_marks_the_best():
    text = FULL.to_text()
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "Results <1>"
    assert next(line for line in lines if line.startswith("a & b")).endswith("x|y")
    assert text.count("*") == 2  # the cell and its meaning
    assert "70.0 ± 1.0 *" in text
    at = next(i for i, line in enumerate(lines) if line.startswith("chance"))
    assert lines[at - 1] == ""
    assert lines[at - 2].startswith("c ")
    assert "± is a standard error." in lines


def test_markdown_has_as_many_cells_in_every_row():
    lines = [line for line in FULL.to_markdown().splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {5}
    assert lines[1] == "|---|---:|---:|---:|"
    assert "| **70.0 ± 1.0** |" in lines[2]
    assert lines[-1].startswith("| *chance* | 10.0 | – |")


def test_html_is_well_formed_and_semantic():
    root = ET.fromstring(f"<div>{FULL.to_html()}</div>")
    assert root.findtext(".//caption") == "Results <1>"
    assert [cell.get("scope") for cell in root.findall(".//thead/tr/th")] == ["col"] * 4
    rows, baselines = root.findall(".//tbody")
    assert [cell.text for cell in rows.findall("tr/th")] == ["a & b", "c"]
    assert [cell.text for cell in baselines.findall("tr/th")] == ["chance"]
    assert [strong.text for strong in root.iter("strong")] == ["70.0 ± 1.0"]
    assert {len(row) for row in root.iter("tr")} == {4}


def test_nothing_is_said_about_marks_where_there_are_none():
    assert "marks" not in table(Measured(0.5, 0.01), Measured(0.5, 0.01)).to_text()
