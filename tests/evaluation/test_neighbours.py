import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from dppmask.errors import UserError
from dppmask.evaluation.baselines import one_hot
from dppmask.evaluation.neighbours import Neighbours, find_neighbours
from dppmask.rng import fold_in


def features(count, *, key):
    """Vectors of very different lengths, which must not matter."""
    generator = fold_in(21, key)
    return torch.randn(count, 6, generator=generator) * torch.rand(count, 1, generator=generator).exp()


@pytest.mark.parametrize(("k", "classes"), [(1, 4), (5, 4), (5, 1), (40, 3)])
def test_votes_equal_sklearn(k, classes):
    bank, queries = features(40, key=0), features(25, key=1)
    labels = torch.arange(40) % classes
    reference = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1.0 - distance) / 0.07)
    ).fit(bank, labels)
    votes = find_neighbours(queries, [bank], k=k).votes(one_hot(labels, classes), k=k, temperature=0.07)
    expected = torch.from_numpy(reference.predict_proba(queries)).float()
    torch.testing.assert_close(votes, expected, atol=1e-5, rtol=1e-5)


def test_pieces_of_bank_and_queries_do_not_matter():
    bank, queries = features(50, key=0), features(23, key=1)
    whole = find_neighbours(queries, [bank], k=7)
    pieces = Neighbours(queries, k=7, chunk=4)
    for piece in bank.split([3, 20, 1, 26]):  # the first is smaller than k
        pieces.update(piece)
    assert torch.equal(pieces.index, whole.index)
    torch.testing.assert_close(pieces.similarity, whole.similarity)


def test_fewer_neighbours_are_a_prefix():
    bank, queries = features(50, key=0), features(5, key=1)
    targets = one_hot(torch.arange(50) % 3, 3)
    many, few = find_neighbours(queries, [bank], k=9), find_neighbours(queries, [bank], k=4)
    torch.testing.assert_close(
        many.votes(targets, k=4, temperature=0.1), few.votes(targets, k=4, temperature=0.1)
    )


def test_repeated_images_share_the_vote():
    bank = torch.ones(4, 6)
    votes = find_neighbours(bank[:1], [bank], k=4).votes(
        one_hot(torch.tensor([0, 0, 1, 0]), 2), k=4, temperature=0.07
    )
    torch.testing.assert_close(votes, torch.tensor([[0.75, 0.25]]))


def test_tiny_temperature_is_the_nearest_neighbour_and_never_overflows():
    bank, queries = features(30, key=0), features(10, key=1)
    labels = torch.arange(30) % 3
    neighbours = find_neighbours(queries, [bank], k=10)
    votes = neighbours.votes(one_hot(labels, 3), k=10, temperature=1e-6)
    assert votes.isfinite().all()
    assert torch.equal(votes.argmax(1), labels[neighbours.index[:, 0]])


def test_a_vector_of_zeros_has_neighbours_too():
    votes = find_neighbours(torch.zeros(1, 6), [features(5, key=0)], k=5).votes(
        torch.eye(5), k=5, temperature=0.07
    )
    torch.testing.assert_close(votes, torch.full((1, 5), 0.2))


def test_more_neighbours_than_images_is_an_error():
    with pytest.raises(UserError, match="k must be at most the number of training images, 3, got 4"):
        find_neighbours(features(2, key=0), [features(3, key=1)], k=4)
