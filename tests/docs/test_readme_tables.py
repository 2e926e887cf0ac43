"""The README's copies of tables 1 and 2 say what the committed cells say."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dppmask.reproduce.cells import CELLS, Cells
from dppmask.reproduce.experiments import load_experiment
from dppmask.reproduce.scales import load_scale
from dppmask.reproduce.summary import beside_baseline, measured
from dppmask.reproduce.units import job_of

ROOT = Path(__file__).parents[2]
HEADINGS = {
    "table1": ["linear", "finetune", "common", "lost"],
    "table2": ["knn_labels", "knn", "linear", "acc", "lost"],
}


def rows_of(heading):
    """First cell of each line of the README's table → the others."""
    text = (ROOT / "README.md").read_text()
    block = text[text.index(f"| {heading} |") :].split("\n\n")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]
    return {first: cells for first, *cells in lines}


@pytest.mark.parametrize("name", HEADINGS)
def test_numbers_are_those_of_the_cells(name):
    cells = Cells(ROOT / "docs" / "results" / CELLS)
    job = job_of(load_experiment(name), replace(load_scale("tiny"), seeds=(0, 1, 2)))
    shown = rows_of(name.replace("table", "Table "))
    titles = {row.title: row for row in job.experiment.rows.values()}
    assert titles.keys() <= shown.keys()
    for title, row in titles.items():
        for key, text in zip(HEADINGS[name], shown[title], strict=True):
            column = job.experiment.columns[key]
            found = measured(job, row, column, cells)
            digits = len(re.search(r"\.(\d+)", text)[1])
            assert text.strip("*") == f"{found.mean:.{digits}f} ± {found.deviation:.{digits}f}", (title, key)
            beside = beside_baseline(job, row, column, cells)
            better = beside and beside.clear and (beside.mean > 0) == (column.better == "higher")
            assert text.startswith("**") == bool(better), (title, key)
