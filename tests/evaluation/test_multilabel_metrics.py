import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_score, recall_score
from torchmetrics.functional.classification import multilabel_accuracy, multilabel_f1_score

from dppmask.errors import UserError
from dppmask.evaluation.metrics import mean_average_precision
from dppmask.evaluation.multilabel_metrics import (
    LabelCounts,
    check_thresholds,
    label_rows,
    multilabel_metrics,
    multilabel_values,
)
from dppmask.rng import fold_in


def cases():
    """Probabilities and bool targets: plain, and every way to be degenerate."""
    generator = fold_in(81)
    probabilities = torch.rand(60, 5, generator=generator)
    targets = torch.rand(60, 5, generator=generator) < 0.7 * probabilities
    missing = targets.clone()
    missing[:, 3] = False
    tied = (4 * probabilities).round() / 4  # many exactly at 0.5
    return {
        "plain": (probabilities, targets),
        "no positives in a label": (probabilities, missing),
        "tied": (tied, targets),
        "one label": (probabilities[:, :1], targets[:, :1]),
        "one image": (probabilities[:1], torch.ones(1, 5, dtype=torch.bool)),
        "nothing predicted": (0.4 * probabilities, targets),
        "everything predicted": (0.9 + 0.1 * probabilities, targets),
        "a label neither true nor predicted": (probabilities * (missing.any(0) + 0.1), missing),
        "constant": (torch.full((60, 5), 0.6), targets),
    }


def sklearn_values(probabilities, targets, threshold):
    """The same by scikit-learn."""
    truth, predicted = targets.long().numpy(), (probabilities > threshold).long().numpy()

    def of(score, average, first=truth, second=predicted):
        if truth.shape[1] == 1:  # which scikit-learn takes for classes 0 and 1
            return score(first[:, 0], second[:, 0], zero_division=0.0)
        return score(first, second, average=average, zero_division=0.0)

    cp, cr = of(precision_score, "macro"), of(recall_score, "macro")
    return {
        "accuracy": accuracy_score(truth.ravel(), predicted.ravel()),
        "op": of(precision_score, "micro"),
        "or": of(recall_score, "micro"),
        "of1": of(f1_score, "micro"),
        "cp": cp,
        "cr": cr,
        "cf1_mean": of(f1_score, "macro"),
        "cf1_pr": 2 * cp * cr / (cp + cr) if cp + cr else 0.0,
        "f1_weighted": of(f1_score, "weighted"),
        "f1_weighted_swapped": of(f1_score, "weighted", predicted, truth),
    }


@pytest.mark.parametrize("threshold", [0.5, 0.8])
@pytest.mark.parametrize("name", cases())
def test_values_equal_sklearn(name, threshold):
    probabilities, targets = cases()[name]
    found = multilabel_values(probabilities, targets, thresholds=(threshold,))
    expected = sklearn_values(probabilities, targets, threshold)
    assert found.pop("mAP") == pytest.approx(mean_average_precision(probabilities, targets)[0])
    assert found == pytest.approx({f"{key}_{threshold}": value for key, value in expected.items()})


@pytest.mark.parametrize("name", ["plain", "no positives in a label", "nothing predicted", "constant"])
def test_values_equal_torchmetrics(name):
    probabilities, targets = cases()[name]
    found = multilabel_values(probabilities, targets)
    for threshold in (0.5, 0.8):
        options = {"num_labels": 5, "threshold": threshold}
        for ours, average in {"of1": "micro", "cf1_mean": "macro", "f1_weighted": "weighted"}.items():
            expected = multilabel_f1_score(probabilities, targets.long(), average=average, **options)
            assert found[f"{ours}_{threshold}"] == pytest.approx(expected.item(), abs=1e-6)
        expected = multilabel_accuracy(probabilities, targets.long(), average="micro", **options)
        assert found[f"accuracy_{threshold}"] == pytest.approx(expected.item(), abs=1e-6)


def test_both_customs_of_cf1_and_both_weights_differ():
    found = multilabel_values(*cases()["plain"])
    assert len({round(found[f"{name}_0.5"], 4) for name in ("cf1_mean", "cf1_pr", "of1", "f1_weighted")}) == 4
    assert found["f1_weighted_0.5"] != pytest.approx(found["f1_weighted_swapped_0.5"], abs=1e-3)


def test_the_custom_of_the_asl_code():
    """Counts and both F1s as a plain loop, with that code's rule that a label without a hit scores 0."""
    probabilities, targets = cases()["no positives in a label"]
    per_label, hits, wrong, missed = [], 0, 0, 0
    for label in range(5):
        tp = fp = fn = 0
        for p, y in zip(probabilities[:, label].tolist(), targets[:, label].tolist(), strict=True):
            tp, fp, fn = tp + (p > 0.8 and y), fp + (p > 0.8 and not y), fn + (p <= 0.8 and y)
        precision, recall = tp / (tp + fp) if tp else 0.0, tp / (tp + fn) if tp else 0.0
        per_label.append(2 * precision * recall / (precision + recall) if tp else 0.0)
        hits, wrong, missed = hits + tp, wrong + fp, missed + fn
    found = multilabel_values(probabilities, targets)
    assert found["cf1_mean_0.8"] == pytest.approx(sum(per_label) / 5)
    precision, recall = hits / (hits + wrong), hits / (hits + missed)
    assert found["of1_0.8"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_weights_are_repetitions():
    probabilities, targets = cases()["plain"]
    times = torch.stack([torch.randint(0, 4, (60,), generator=fold_in(82, key)) for key in range(3)])
    counts = LabelCounts.of(probabilities > 0.5, targets, times)
    for row in range(3):
        repeated = (each.repeat_interleave(times[row], 0) for each in (probabilities > 0.5, targets))
        expected = LabelCounts.of(*repeated)
        for name in ("hits", "predicted", "positives", "f1"):
            assert torch.equal(getattr(counts, name)[row], getattr(expected, name))


def test_errors_are_the_spread_over_samples():
    """Errors of one sample of 80 images against the spread of each metric over 300 samples of 80."""
    generator = fold_in(83)

    def sample():
        targets = torch.rand(80, 3, generator=generator) < 0.4
        return (torch.randn(80, 3, generator=generator) + 2 * targets - 1).sigmoid(), targets

    found = [multilabel_metrics(*sample(), seed=i) for i in range(10)]
    samples = [multilabel_values(*sample()) for _ in range(300)]
    assert found[0].keys() == samples[0].keys()
    for name in samples[0]:
        spread = torch.tensor([values[name] for values in samples]).std().item()
        assert 0.7 < sum(scored[name][1] for scored in found) / len(found) / spread < 1.4, name


def test_metrics_are_the_values_and_do_not_depend_on_who_asks_first():
    probabilities, targets = cases()["plain"]
    both = multilabel_metrics(probabilities, targets, seed=3)
    assert {name: value for name, (value, _) in both.items()} == multilabel_values(probabilities, targets)
    alone = multilabel_metrics(probabilities, targets, thresholds=(0.8,), seed=3)
    assert alone == {name: scored for name, scored in both.items() if not name.endswith("_0.5")}
    assert both["mAP"] == mean_average_precision(probabilities, targets, seed=3)
    assert both["of1_0.5"][1] != multilabel_metrics(probabilities, targets, seed=4)["of1_0.5"][1]


def test_a_row_for_each_label():
    probabilities, targets = cases()["no positives in a label"]
    rows = label_rows(probabilities, targets, list("abcde"))
    assert [row["label"] for row in rows] == list("abcde")
    assert (rows[3]["positives"], rows[3]["average_precision"], rows[3]["f1_0.5"]) == (0, 0.0, 0.0)
    truth, predicted = targets[:, 1].numpy(), (probabilities[:, 1] > 0.8).numpy()
    assert (
        rows[1]
        | {
            "positives": int(truth.sum()),
            "share": pytest.approx(truth.mean()),
            "average_precision": pytest.approx(average_precision_score(truth, probabilities[:, 1])),
            "precision_0.8": pytest.approx(precision_score(truth, predicted)),
            "recall_0.8": pytest.approx(recall_score(truth, predicted)),
            "f1_0.8": pytest.approx(f1_score(truth, predicted)),
        }
        == rows[1]
    )


def test_no_positives_at_all():
    with pytest.raises(UserError, match="at least one positive"):
        multilabel_metrics(torch.rand(4, 2, generator=fold_in(84)), torch.zeros(4, 2, dtype=torch.bool))


@pytest.mark.parametrize("thresholds", [(), (0.0,), (0.5, 1.0), (0.5, 0.5)])
def test_thresholds_out_of_range(thresholds):
    with pytest.raises(UserError, match="thresholds must"):
        check_thresholds(thresholds)
