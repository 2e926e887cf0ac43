"""The textbook in plain loops over all subsets: ground truth for tests, up to a dozen items."""

from itertools import combinations
from math import prod

import torch
from torch import Tensor

Subset = tuple[int, ...]


def subsets(num_items: int, k: int | None = None) -> list[Subset]:
    """All subsets of ``range(num_items)``, or those of size ``k``, as ascending tuples."""
    sizes = range(num_items + 1) if k is None else [k]
    return [subset for size in sizes for subset in combinations(range(num_items), size)]


def determinant(L: Tensor, subset: Subset) -> float:
    """``det L_S`` of one kernel ``[N, N]``, in float64; 1 for the empty set."""
    index = torch.tensor(subset, dtype=torch.int64)
    return float(torch.linalg.det(L.double()[index][:, index]))


def probabilities(L: Tensor, k: int | None = None) -> dict[Subset, float]:
    """The probability of every subset under the DPP of ``L [N, N]``, or under its k-DPP."""
    weights = {subset: max(determinant(L, subset), 0.0) for subset in subsets(len(L), k)}
    total = sum(weights.values())
    return {subset: weight / total for subset, weight in weights.items()}


def inclusion(L: Tensor, subset: Subset, k: int | None = None) -> float:
    """The probability that a sample contains all of ``subset``."""
    return sum(p for sample, p in probabilities(L, k).items() if set(subset) <= set(sample))


def elementary_symmetric_polynomial(values: list[float], k: int) -> float:
    """``e_k``: the sum over all subsets of size ``k`` of their products."""
    return sum(prod(subset) for subset in combinations(values, k))


def greedy_map(
    L: Tensor, k: int, *, threshold: float = 0.0, first: int | None = None
) -> tuple[list[int], list[float]]:
    """Greedy MAP inference on one kernel, each gain the quotient of two determinants.

    Returns:
        Items in the order of picking, and their gains.
    """
    N = len(L)
    tolerance = max(threshold, N * torch.finfo(L.dtype).eps * float(L.diagonal().max()))
    items: list[int] = []
    gains: list[float] = []
    while len(items) < k:
        rest = [first] if first is not None and not items else [i for i in range(N) if i not in items]
        current = determinant(L, tuple(items))
        quotients = [determinant(L, (*items, i)) / current for i in rest]
        best = max(quotients)
        if best <= tolerance:
            break
        items.append(rest[quotients.index(best)])
        gains.append(best)
    return items, gains


def sequential_draw(K: Tensor, uniforms: Tensor) -> list[int]:
    """One draw of the DPP with marginal kernel ``K [N, N]``: each item in turn, given those before.

    Args:
        K: Marginal kernel ``[N, N]``.
        uniforms: ``[N]``; item i is in the sample if ``uniforms[i]`` is below its chance, which is the pivot.

    Source: Poulson (2020), *High-performance sampling of generic determinantal point processes*, Algorithm 1.
    """
    rest, chosen = K.double().clone(), []
    for item, uniform in enumerate(uniforms.tolist()):
        pivot = float(rest[item, item])
        if uniform < pivot:
            chosen.append(item)
        else:
            pivot -= 1
        rest = rest - rest[:, item, None] * rest[None, item] / pivot
    return chosen
