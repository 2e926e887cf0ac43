"""What is called clear, from cells written by hand."""

from dataclasses import replace

import pytest

from dppmask.reproduce.cells import Cells
from dppmask.reproduce.findings import findings
from dppmask.reproduce.units import job_of

KNN = {"random": (0.40, 0.41, 0.42), "dpp": (0.50, 0.51, 0.525)}


@pytest.fixture
def job(experiment, scale):
    return job_of(experiment, replace(scale, seeds=(0, 1, 2)))


def written(job, path, values, seeds=(0, 1, 2)):
    cells = Cells(path)
    for (row, seed), unit in job.units.items():
        for evaluation in unit.evaluations.values():
            if seed in seeds:
                metrics = {"knn_top1_k3": values[row][seed], "loss": 1.0 + seed}
                cells.add({"key": evaluation.key, "metrics": metrics, "timings": {}})
    return cells


def text_of(section):
    return "\n".join(block.to_html() for block in section.blocks)


def test_a_clear_difference_is_named_with_its_direction(job, tmp_path):
    found = findings([job], written(job, tmp_path / "a", KNN))
    assert found.blocks[2].rows == [
        {
            "place": "table0",
            "rows": "DPP masks − random masks",
            "quantity": "k-NN, %",
            "found": "+10.17 [+9.45, +10.88]",  # scipy.stats.ttest_rel of the two rows
            "verdict": "better",
        }
    ]
    assert "1 of 2 differences" in text_of(found)
    swapped = {"random": KNN["dpp"], "dpp": KNN["random"]}
    assert findings([job], written(job, tmp_path / "b", swapped)).blocks[2].rows[0]["verdict"] == "worse"


def test_noise_is_not_clear(job, tmp_path):
    values = {"random": (0.40, 0.41, 0.42), "dpp": (0.50, 0.39, 0.42)}
    found = findings([job], written(job, tmp_path / "a", values))
    assert len(found.blocks) == 2
    assert "0 of 2 differences" in text_of(found)


def test_two_seeds_are_not_enough(job, tmp_path):
    assert findings([job], written(job, tmp_path / "a", KNN, seeds=(0, 1))) is None


def test_what_two_experiments_share_counts_once(job, tmp_path):
    other = replace(job, experiment=replace(job.experiment, name="table00"))
    found = findings([job, other], written(job, tmp_path / "a", KNN))
    assert "1 of 2 differences" in text_of(found)


def test_what_two_experiments_share_counts_once_though_one_has_more_seeds(job, experiment, scale, tmp_path):
    more = job_of(replace(experiment, name="table00"), replace(scale, seeds=(0, 1, 2, 3)))
    values = {row: (*seen, seen[0]) for row, seen in KNN.items()}
    found = findings([more, job], written(more, tmp_path / "a", values, seeds=(0, 1, 2, 3)))
    assert "of 2 differences" in text_of(found)


def test_what_masks_do_stands_apart_from_what_was_learned(job, tmp_path):
    columns = {
        name: replace(column, learned=name != "loss") for name, column in job.experiment.columns.items()
    }
    job = replace(job, experiment=replace(job.experiment, columns=columns))
    found = text_of(findings([job], written(job, tmp_path / "a", KNN)))
    assert "1 of 1 differences in what was learned are clear" in found
    assert "0 of 1 differences in what masks show" in found
