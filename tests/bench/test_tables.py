"""Rows as a GPU gives them, which no test here can measure, as tables and pictures."""

import pytest

from dppmask.bench.arithmetic import H100
from dppmask.bench.floors import run_floors
from dppmask.bench.inputs import MASKS, STRATEGIES
from dppmask.bench.plots import draw_masks, draw_step
from dppmask.bench.table9 import PAPER, table9
from dppmask.bench.tables import ibot_table, masks_table, step_table

SHARED = {"device": "cuda", "gpu": "H100", "cpu": "a processor", "threads": 16, "backend": "triton"}
SHARED |= {"batch": 256, "num_patches": 196, "num_keep": 49, "feature_dim": 768, "implementation": "dppmask"}
TIMES = {"low_ms": 0.4, "median_ms": 0.5, "high_ms": 0.6}
STEP = {"backbone": "vit_base_patch16_224", "dtype": "bfloat16", "compiled": True, "ratio": 0.45}
STEP |= {"flops": 14.964e12, "bytes": 3.1e9, "matmul_share": 0.35, "mask_ms": 0.4, "over_random": 0.01}


def mask_row(name: str, **columns):
    return SHARED | TIMES | {"task": MASKS[name], "ratio": 1.0, "dtype": "float32"} | columns


def step_row(mask: str, **columns):
    return SHARED | STEP | {"mask": mask, "low_ms": 49.0, "median_ms": 50.0, "high_ms": 51.0} | columns


def line_of(text: str, *words: str) -> str:
    (line,) = (line for line in text.splitlines() if all(word in line for word in words))
    return line


def test_waits_of_the_host_and_captures_are_shown():
    rows = [
        mask_row("greedy", host_syncs=0, capturable=True, graph_ms=0.31),
        mask_row("exact", host_syncs=2, capturable=False),
    ]
    text = masks_table(rows).to_text(width=160)
    assert "on H100" in text
    assert "0, 0.31 ms" in line_of(text, MASKS["greedy"])
    assert "2, no" in line_of(text, MASKS["exact"])
    assert "host" not in masks_table([mask_row("greedy")]).to_text(width=160)


def test_budgets_stand_beside_the_shares_of_a_gpu():
    rows = [step_row("random", share=0.001), step_row("greedy", share=0.008), step_row("exact", share=0.09)]
    text = step_table(rows).to_text(width=170)
    assert "≤ 1%" in line_of(text, " greedy ", "0.80")
    assert "≤ 10%" in line_of(text, " exact ", "9.00")
    assert "≤" not in line_of(text, " random ", "0.10")
    assert "dppmask: bfloat16, compiled" in text
    assert "≤" not in step_table([row | {"device": "cpu"} for row in rows]).to_text(width=170)


def test_budgets_of_ibot_stand_beside_the_shares_of_a_cpu():
    rows = [step_row(name, share=0.01, device="cpu") for name in ("attention, high", "purged", "exact")]
    text = ibot_table(rows).to_text(width=170)
    assert "≤ 2%" in line_of(text, " purged ", "1.00")
    assert text.count("≤") == 1
    assert "on a processor" in text
    assert "≤" not in ibot_table([row | {"device": "cuda"} for row in rows]).to_text(width=170)


def test_table_9_has_our_row_above_the_papers():
    seconds = {"random": 50.0, "greedy": 51.0, "exact": 55.0}
    table = table9([step_row(name, median_ms=ms) for name, ms in seconds.items()])
    (ours,), (paper,) = table.rows, table.baselines
    assert ours["exact"] == 0.055
    assert ours["greedy_ratio"] == pytest.approx(1.02)
    assert paper["greedy_ratio"] == pytest.approx(1.225, abs=1e-3)
    assert paper["exact_ratio"] == pytest.approx(12.89, abs=1e-2)
    assert ours.keys() >= PAPER.keys()


def test_gap_is_measured_over_floor():
    (row,) = run_floors([step_row("random", share=0.0)], H100).rows
    assert row["floor"] == pytest.approx(15.13, abs=0.01)
    assert row["gap"] == pytest.approx(50.0 / 15.13, rel=1e-3)


def test_pictures_of_gpu_rows_name_the_gpu_and_show_the_budget():
    figure = draw_masks([mask_row(name) for name in STRATEGIES])
    assert "on H100" in figure.axes[0].get_title(loc="left")
    rows = [step_row(name, share=0.005) for name in STRATEGIES]
    shares = draw_step(rows).axes[1]
    budgets = sorted(line.get_xdata()[0] for line in shares.lines)
    assert budgets == [0.01, 0.1]
