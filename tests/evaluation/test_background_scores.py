import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from dppmask.evaluation.background_answers import Answers
from dppmask.evaluation.background_scores import (
    NO_CLASS,
    background_gap,
    confusion_rows,
    score_variants,
    variant_rows,
)
from dppmask.evaluation.class_map import ClassMap
from dppmask.rng import fold_in

N = 200


def random_answers(seed, *, right, order=None):
    """Answers about N foregrounds of three classes that are right with a given probability."""
    generator = fold_in(seed)
    labels = torch.arange(N) % 3
    is_right = torch.rand(N, generator=generator) < right
    answers = torch.where(is_right, labels, torch.randint(-1, 3, (N,), generator=generator))
    order = torch.arange(N) if order is None else order
    foregrounds = [(int(labels[i]), f"{i}") for i in order]
    return Answers(labels[order], answers[order], answers[order].clamp(min=0), foregrounds)


@pytest.mark.parametrize("shuffled", [False, True])
def test_gap_and_its_paired_error_equal_a_loop_over_foregrounds(shuffled):
    order = torch.randperm(N, generator=fold_in(3)) if shuffled else None
    same, rand = random_answers(0, right=0.7), random_answers(1, right=0.5, order=order)
    right = [
        {
            name: float(said == label)
            for said, label, (_, name) in zip(a.official, a.labels, a.foregrounds, strict=True)
        }
        for a in (same, rand)
    ]
    differences = [right[0][name] - right[1][name] for name in right[0]]
    gap, error = background_gap(same, rand)
    assert gap == pytest.approx(np.mean(differences))
    assert error == pytest.approx(np.std(differences) / math.sqrt(N))


def test_the_paired_error_is_the_spread_of_the_gap_over_draws_of_foregrounds():
    same = random_answers(0, right=0.7)
    rand = Answers(
        same.labels,
        torch.where(torch.rand(N, generator=fold_in(9)) < 0.1, -1, same.official),
        *(same.restricted, same.foregrounds),
    )
    _, paired = background_gap(same, rand)
    gaps = []
    for draw in range(400):
        chosen = torch.randint(N, (N,), generator=fold_in(10, draw))
        right = [(a.official == a.labels)[chosen].double().mean() for a in (same, rand)]
        gaps.append((right[0] - right[1]).item())
    assert paired == pytest.approx(np.std(gaps), rel=0.15)
    other = Answers(rand.labels, rand.official, rand.restricted, [(0, "else"), *rand.foregrounds[1:]])
    assert background_gap(same, other)[1] > 2 * paired  # independent: what they share does not cancel


def test_restricted_scores_only_where_outputs_stand_for_no_class():
    answers = {"mixed_same": random_answers(0, right=0.6), "mixed_rand": random_answers(1, right=0.4)}
    complete = score_variants(answers, ClassMap(torch.arange(3), list("abc"), ""))
    assert set(complete) == {"mixed_same", "mixed_rand", "bg_gap"}
    both = score_variants(answers, ClassMap(torch.tensor([0, 1, 2, -1]), list("abc"), ""))
    assert set(both) == {*complete, *(f"restricted_{name}" for name in complete)}
    for name, given in answers.items():
        assert both[name][0] == np.mean(given.official.numpy() == given.labels.numpy())
        assert both[f"restricted_{name}"][0] == np.mean(given.restricted.numpy() == given.labels.numpy())
    assert "bg_gap" not in score_variants(
        {"original": answers["mixed_same"]}, ClassMap(torch.arange(3), [], "")
    )
    rows = variant_rows(answers, both)
    assert [row["variant"] for row in rows] == list(answers)
    assert rows[1]["restricted_top1"] == both["restricted_mixed_rand"][0]


def test_confusion_equals_scikit_learn():
    given = random_answers(4, right=0.5)
    names = ["a", "b", "c"]
    rows = confusion_rows({"original": given}, names)
    expected = confusion_matrix(given.labels, given.official, labels=[0, 1, 2, -1])
    for row, counts in zip(rows, expected[:3], strict=True):
        assert [row["predicted"].get(name, 0) for name in [*names, NO_CLASS]] == counts.tolist()
