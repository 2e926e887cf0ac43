"""Numbers of a report from cells written by hand, against SciPy's own paired test."""

import math
import statistics

import pytest
from scipy import stats

from dppmask.reproduce import report
from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import experiment_of
from dppmask.reproduce.summary import Over, difference, measured
from dppmask.reproduce.tables import costs, differences, results
from dppmask.reproduce.units import job_of

KNN = {("random", 0): 0.40, ("random", 1): 0.44, ("dpp", 0): 0.47, ("dpp", 1): 0.50}


@pytest.fixture
def job(experiment, scale):
    return job_of(experiment, scale)


@pytest.fixture
def cells(job, tmp_path):
    """k-NN of every run, the loss of one only."""
    written = Cells(tmp_path / "cells.jsonl")
    for place, unit in job.units.items():
        for evaluation in unit.evaluations.values():
            metrics = {"knn_top1_k3": KNN[place]} if evaluation.name == "knn" else {"loss": 1.25}
            if evaluation.name == "knn" or place == ("random", 0):
                written.add(
                    {
                        "key": evaluation.key,
                        "evaluation": evaluation.name,
                        "scale": "mini",
                        "method": "mae",
                        "metrics": metrics,
                        "baselines": {
                            "chance": {"knn_top1_k3": 1 / 9},
                            "random_encoder": {"knn_top1_k3": 0.2 + 0.1 * place[1]},
                        },
                        "timings": {"seconds": 90.0, "images_per_second": 32.0},
                        "date": "2026-11-25",
                        "commit": "c0ffee",
                        "hardware": {"gpus": ["H100"], "cpu": "x", "cpu_cores": 2},
                        "versions": {"torch": "2.15", "timm": "1.0"},
                    }
                )
    return written


def test_means_and_deviations_over_seeds(job, cells):
    found = measured(job, job.experiment.rows["dpp"], job.experiment.columns["knn"], cells)
    assert found.by_seed == {0: 47.0, 1: 50.0}
    assert found.mean == 48.5
    assert found.deviation == pytest.approx(statistics.stdev([47.0, 50.0]))
    assert measured(job, job.experiment.rows["dpp"], job.experiment.columns["absent"], cells) is None


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_the_interval_is_that_of_a_paired_t_test(seeds):
    one = [math.sin(3 * seed) for seed in range(seeds)]
    two = [math.cos(5 * seed) for seed in range(seeds)]
    found = difference(Over(dict(enumerate(one))), Over(dict(enumerate(two))))
    expected = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.mean == pytest.approx(statistics.fmean(one) - statistics.fmean(two))
    assert found.clear == (stats.ttest_rel(one, two).pvalue < 0.05 and seeds > 2)


def test_only_seeds_that_both_have_are_compared():
    found = difference(Over({0: 1.0, 1: 2.0, 5: 9.0}), Over({1: 1.5, 0: 1.0, 7: 0.0}))
    assert (found.mean, found.seeds) == (0.25, 2)
    assert difference(Over({0: 1.0}), Over({1: 1.0})) is None
    assert difference(Over({0: 1.0}), Over({0: 3.0})).low == -math.inf


def test_the_tables_show_measured_and_paper_side_by_side(job, cells):
    shown = results(job, cells).to_markdown().splitlines()
    assert shown[0] == "|  | loss | k-NN, % | paper | not here, % | paper |"
    assert shown[2] == "| random masks | 1.250 | 42.00 ± 2.83 | 40.00 | – | 1.00 |"
    assert shown[3] == "| DPP masks | – | 48.50 ± 2.12 | 42.50 | – | – |"
    assert shown[4] == "| *untrained encoder* | – | 25.00 ± 7.07 | – | – | – |"
    assert shown[5] == "| *chance* | – | 11.11 | – | – | – |"
    row = differences(job, cells).to_markdown().splitlines()[2]
    low, high = stats.ttest_rel([47.0, 50.0], [40.0, 44.0]).confidence_interval(0.95)
    assert f"| +6.50 [{low:+.2f}, {high:+.2f}] | +2.50 |" in row
    assert costs(job, cells).to_markdown().splitlines()[2] == "| random masks | 1 | 1.5 | 32 | 1.5 |"


def test_rows_that_are_cited_and_columns_that_some_rows_lack(content, scale, cells):
    content["rows"]["amt"] = {"title": "AMT", "cited": True, "paper": {"knn": 41.0}}
    content["columns"]["picks"] = {"title": "picks", "evaluation": "knn", "metric": "greedy_picks"}
    with pytest.raises(KeyError, match="greedy_picks"):
        results(job_of(experiment_of("table0", content, where=""), scale), cells)
    content["columns"]["picks"]["optional"] = True
    shown = results(job_of(experiment_of("table0", content, where=""), scale), cells).to_markdown()
    assert "| DPP masks | – | 48.50 ± 2.12 | 42.50 | – | – | – |" in shown
    assert "| AMT | – | – | 41.00 | – | – | – |" in shown


def test_a_table_without_numbers_of_the_paper_does_not_speak_of_them(content, scale, cells):
    assert "“paper”" in results(job_of(experiment_of("t", content, where=""), scale), cells).note
    for row in content["rows"].values():
        del row["paper"]
    assert "paper" not in results(job_of(experiment_of("t", content, where=""), scale), cells).note


def test_both_reports_hold_the_numbers_and_how_they_came_about(job, scale, cells, tmp_path):
    path = report.write_reports([job], scale, cells, tmp_path / "out")
    assert path.name == "reproduce-mini.html"
    for text in (path.read_text(), path.with_suffix(".md").read_text()):
        for piece in (
            "5 of 8 cells",
            "48.50 ± 2.12",
            "c0ffee",
            "H100",
            "masks/dpp",
            "Table 0: Two rows",
        ):
            assert piece in text


def test_an_experiment_without_cells_has_a_report_too(job, scale, tmp_path):
    path = report.write_reports([job], scale, Cells(tmp_path / "none.jsonl"), tmp_path)
    assert "0 of 8 cells are measured" in path.read_text()


def test_a_chart_has_a_panel_for_each_measured_column(content, scale, cells, tmp_path):
    assert report.chart(job_of(experiment_of("t", content, where=""), scale), cells) is None
    content["chart"] = True
    job = job_of(experiment_of("t", content, where=""), scale)
    figure = report.chart(job, cells).figure
    assert [axes.get_xlabel() for axes in figure.axes] == ["loss", "k-NN, %"]
    assert report.chart(job, Cells(tmp_path / "none.jsonl")) is None
