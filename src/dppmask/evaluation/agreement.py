"""How far clusters agree with classes: NMI, ARI and the accuracy of the best matching."""

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from dppmask.evaluation.metrics import Scored
from dppmask.rng import fold_in


def agreement(clusters: Tensor, labels: Tensor) -> dict[str, float]:
    """Three measures of agreement between a clustering and the classes, none of which minds names.

    - ``nmi``: mutual information over the arithmetic mean of both entropies.
    - ``acc``: see :func:`matched_accuracy`.
    - ``ari``: Rand index adjusted so that its expectation by chance is 0; it may be negative.

    Args:
        clusters: int64 ``[n]``, not negative.
        labels: int64 ``[n]``, not negative.
    """
    one, other = labels.numpy(), clusters.numpy()
    return {
        "nmi": float(normalized_mutual_info_score(one, other)),
        "acc": matched_accuracy(clusters, labels),
        "ari": float(adjusted_rand_score(one, other)),
    }


def matched_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Share of images whose cluster is the one matched to their class, under the best one-to-one matching.

    Where there are more clusters than classes, or fewer, what is left over matches nothing and counts as
    wrong.

    Args:
        clusters: int64 ``[n]``, not negative.
        labels: int64 ``[n]``, not negative.

    Source: Kuhn (1955), *The Hungarian method for the assignment problem*.
    """
    counts = contingency(clusters, labels).numpy()
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))


def contingency(clusters: Tensor, labels: Tensor) -> Tensor:
    """How many images are in each cluster and class, int64 ``[K, C]``."""
    num_clusters, num_classes = int(clusters.max()) + 1, int(labels.max()) + 1
    cells = clusters * num_classes + labels
    return cells.bincount(minlength=num_clusters * num_classes).unflatten(0, (num_clusters, num_classes))


def scored_agreement(clusters: Tensor, labels: Tensor, *, seed: int = 0, resamples: int = 100) -> Scored:
    """:func:`agreement` with bootstrap standard errors over images, the clustering given.

    Args:
        clusters: int64 ``[n]``.
        labels: int64 ``[n]``.
        seed: Of the resamples.
        resamples: Draws of n images with replacement.
    """
    generator, count = fold_in(seed), len(labels)
    drawn = [torch.randint(count, (count,), generator=generator) for _ in range(resamples)]
    spread = [agreement(clusters[rows], labels[rows]) for rows in drawn]
    return {
        name: (value, torch.tensor([found[name] for found in spread], dtype=torch.float64).std().item())
        for name, value in agreement(clusters, labels).items()
    }


def chance_agreement(
    num_clusters: int, labels: Tensor, *, seed: int = 0, draws: int = 20
) -> dict[str, float]:
    """The mean of :func:`agreement` over random assignments: more than 0 for NMI, more than 1 / K for ACC.

    Args:
        num_clusters: K, all equally likely.
        labels: int64 ``[n]``.
        seed: Of the assignments.
        draws: How many.
    """
    generator = fold_in(seed)
    found = [
        agreement(torch.randint(num_clusters, labels.shape, generator=generator), labels)
        for _ in range(draws)
    ]
    return {name: sum(one[name] for one in found) / draws for name in found[0]}
