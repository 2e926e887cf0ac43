import math

import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import multilabel_average_precision

from dppmask.errors import UserError
from dppmask.evaluation.metrics import (
    accuracy,
    average_precision,
    classification_metrics,
    mean_average_precision,
)
from dppmask.rng import fold_in


def cases():
    """Scores, bool targets: plain, tied, few images, one positive, all positive."""
    generator = fold_in(11)
    scores = torch.randn(50, 4, generator=generator)
    targets = torch.rand(50, 4, generator=generator) < 0.3
    targets[0] = True
    one = torch.zeros(50, 4, dtype=torch.bool)
    one[7] = True
    return {
        "plain": (scores, targets),
        "tied": ((2 * scores).round(), targets),
        "constant": (torch.zeros(50, 4), targets),
        "two images": (scores[:2], targets[:2]),
        "one positive": (scores, one),
        "all positive": (scores, torch.ones_like(one)),
    }


@pytest.mark.parametrize("name", cases())
def test_average_precision_equals_sklearn(name):
    scores, targets = cases()[name]
    expected = [average_precision_score(targets[:, i], scores[:, i]) for i in range(scores.shape[1])]
    torch.testing.assert_close(
        average_precision(scores, targets), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.filterwarnings("ignore:No positive samples")
def test_average_precision_equals_torchmetrics_and_a_label_without_positives_scores_0():
    scores, targets = cases()["plain"]
    targets[:, 2] = False
    expected = multilabel_average_precision(scores.sigmoid(), targets.long(), num_labels=4, average="macro")
    ours = average_precision(scores.sigmoid(), targets)
    assert ours[2] == 0.0
    torch.testing.assert_close(ours.mean().float(), expected)
    assert mean_average_precision(scores, targets)[0] == pytest.approx(expected.item())


def test_weights_are_repetitions():
    scores, targets = cases()["tied"]
    weights = torch.randint(0, 4, (50,), generator=fold_in(12))
    repeated = average_precision(scores.repeat_interleave(weights, 0), targets.repeat_interleave(weights, 0))
    torch.testing.assert_close(average_precision(scores, targets, weights), repeated)


def test_order_of_images_does_not_matter_and_labels_do():
    scores, targets = cases()["tied"]
    order = torch.randperm(50, generator=fold_in(13))
    value = average_precision(scores, targets)
    torch.testing.assert_close(average_precision(scores[order], targets[order]), value)
    assert not torch.allclose(average_precision(scores[order], targets), value)


def test_constant_score_has_the_prevalence():
    _, targets = cases()["plain"]
    torch.testing.assert_close(average_precision(torch.zeros(50, 4), targets), targets.double().mean(0))


def test_bootstrap_error_is_the_spread_over_samples():
    """The error of one sample of 80 images against the spread of mAP over 300 samples of 80."""
    generator = fold_in(14)

    def sample():
        targets = torch.rand(80, 3, generator=generator) < 0.4
        return torch.randn(80, 3, generator=generator) + targets, targets

    errors = [mean_average_precision(*sample(), seed=i)[1] for i in range(10)]
    spread = torch.tensor([average_precision(*sample()).mean() for _ in range(300)]).std().item()
    assert 0.75 < sum(errors) / len(errors) / spread < 1.33


def test_accuracy_has_the_binomial_error():
    labels = torch.tensor([0, 1, 1, 2])
    assert accuracy(torch.tensor([0, 1, 2, 2]), labels) == (0.75, math.sqrt(0.75 * 0.25 / 4))
    assert accuracy(labels, labels) == (1.0, 0.0)


def test_the_metric_follows_the_kind_of_label():
    scores, targets = cases()["plain"]
    assert set(classification_metrics(scores, targets)) == {"mAP"}
    assert set(classification_metrics(scores, targets.int().argmax(1))) == {"top1"}
    with pytest.raises(UserError, match="at least one positive"):
        classification_metrics(scores, torch.zeros_like(targets))
