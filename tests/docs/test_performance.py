"""The numbers that docs/performance.md derives are those of the functions it names."""

import re
from pathlib import Path

import pytest

from dppmask.bench.arithmetic import H100, Shape
from dppmask.bench.floors import standard_works
from dppmask.bench.run import bench, check_sections
from dppmask.bench.table9 import PAPER
from dppmask.commands.parser import OptionParser

PAGE = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
H100_STEPS = [f"vit_{size}_patch16_224" for size in ("small", "base", "large")]
WORKS = {
    "CPU": standard_works(Shape(64, 196, 49, 384), ["vit_small_patch16_224"], step_batch=4),
    "H100": standard_works(Shape(256, 196, 49, 768), H100_STEPS, step_batch=256),
}


def table(section: str) -> list[dict[str, str]]:
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (head, *rows)]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


@pytest.mark.parametrize("section", WORKS)
def test_operations_and_bytes_are_those_of_the_formulas(section):
    rows = table(section)
    assert [row["work"] for row in rows] == list(WORKS[section])
    for row, work in zip(rows, WORKS[section].values(), strict=True):
        assert row["Gflop"] == f"{work.flops / 1e9:.2f}", row["work"]
        assert row["MB"] == f"{work.bytes / 1e6:.1f}", row["work"]


def test_floors_of_the_h100_are_those_of_its_data_sheet():
    for row, work in zip(table("H100"), WORKS["H100"].values(), strict=True):
        assert row["floor, ms"] == f"{1e3 * work.floor(H100):.3f}", row["work"]
        assert row["bound by"] == work.bound(H100)


def test_the_papers_numbers_are_those_that_the_command_prints():
    (row,) = (row for row in table("The paper's Table 9") if row[""] == "the paper")
    assert {name: float(row[name]) for name in PAPER} == PAPER


def test_the_commands_are_understood():
    lines = re.findall(r"^dppmask bench(.*?)(?:  .*)?$", PAGE, flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        options = OptionParser("dppmask bench", bench).parse(line.split())
        check_sections(options.get("sections", ()))
