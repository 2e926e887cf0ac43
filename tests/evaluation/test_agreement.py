from itertools import permutations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from dppmask.evaluation.agreement import (
    agreement,
    chance_agreement,
    contingency,
    matched_accuracy,
    scored_agreement,
)
from dppmask.rng import fold_in

CASES = {
    "random": (6, 6, 200),
    "more clusters": (7, 3, 200),
    "fewer clusters": (2, 6, 200),
    "few images": (5, 5, 8),
    "one image": (1, 1, 1),
    "one cluster": (1, 4, 50),
    "one class": (4, 1, 50),
}


def case(name):
    num_clusters, num_classes, count = CASES[name]
    generator = fold_in(51, *CASES[name])
    clusters = torch.randint(num_clusters, (count,), generator=generator)
    return clusters, torch.randint(num_classes, (count,), generator=generator)


def matched_by_trying(clusters, labels):
    """Every injection of classes into clusters, or of clusters into classes."""
    ids, classes = clusters.unique().tolist(), labels.unique().tolist()
    few, many = sorted([ids, classes], key=len)
    of_few, of_many = (clusters, labels) if few is ids else (labels, clusters)
    best = 0
    for chosen in permutations(many, len(few)):
        partner = dict(zip(few, chosen, strict=True))
        pairs = zip(of_few.tolist(), of_many.tolist(), strict=True)
        best = max(best, sum(partner[one] == other for one, other in pairs))
    return best / len(labels)


@pytest.mark.parametrize("name", CASES)
def test_accuracy_is_that_of_the_best_matching(name):
    clusters, labels = case(name)
    assert matched_accuracy(clusters, labels) == pytest.approx(matched_by_trying(clusters, labels))


@pytest.mark.parametrize("name", CASES)
def test_nmi_and_ari_are_those_of_sklearn_in_the_right_places(name):
    clusters, labels = case(name)
    found = agreement(clusters, labels)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters))
    assert found["ari"] == pytest.approx(adjusted_rand_score(labels, clusters))
    counts = contingency(clusters, labels)
    assert (
        counts[counts.sum(1) > 0][:, counts.sum(0) > 0].tolist()
        == contingency_matrix(clusters, labels).tolist()
    )


def test_cluster_names_do_not_matter_and_unused_ids_are_harmless():
    labels = torch.arange(60) % 3
    assert agreement((labels + 1) % 3, labels) == {"nmi": 1.0, "acc": 1.0, "ari": 1.0}
    assert agreement(10 * labels + 5, labels) == {"nmi": 1.0, "acc": 1.0, "ari": 1.0}
    assert agreement(labels, labels + 7)["acc"] == 1.0


def test_nmi_by_hand():
    clusters, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
    nats = torch.tensor([0.5, 0.25, 0.25]).double()
    joint, two, three = (
        -(p * p.log()).sum() for p in (nats, nats.new_tensor([0.5, 0.5]), nats.new_tensor([0.75, 0.25]))
    )
    expected = (two + three - joint) / ((two + three) / 2)
    assert agreement(clusters, labels)["nmi"] == pytest.approx(expected.item())


def test_bootstrap_error_is_the_spread_over_samples():
    """The error of one sample of 150 images against the spread over 200 samples of 150."""
    generator = fold_in(52)

    def sample():
        labels = torch.randint(4, (150,), generator=generator)
        kept = torch.rand(150, generator=generator) < 0.7
        return torch.where(kept, labels, torch.randint(4, (150,), generator=generator)), labels

    errors = [scored_agreement(*sample(), seed=i, resamples=50) for i in range(8)]
    spread = [agreement(*sample()) for _ in range(200)]
    for name in ("nmi", "acc", "ari"):
        mean = sum(found[name][1] for found in errors) / len(errors)
        truth = torch.tensor([found[name] for found in spread]).std().item()
        assert 0.75 < mean / truth < 1.33, name


def test_the_seed_decides_the_error_alone():
    clusters, labels = case("random")
    one, same, other = (scored_agreement(clusters, labels, seed=seed, resamples=20) for seed in (0, 0, 1))
    assert one == same
    assert one["nmi"][0] == other["nmi"][0]
    assert one["nmi"][1] != other["nmi"][1]


def test_chance_is_above_what_one_might_think():
    labels = torch.arange(100) % 10
    chance = chance_agreement(10, labels)
    assert chance["nmi"] > 0.1
    assert chance["acc"] > 0.15  # not 1 / 10: the matching takes the best of chance
    assert abs(chance["ari"]) < 0.02
    many = chance_agreement(10, torch.arange(20_000) % 10, draws=2)
    assert many["nmi"] < 0.01
    assert many["acc"] < 0.12
