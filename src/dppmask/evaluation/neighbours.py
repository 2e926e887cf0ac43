"""Nearest neighbours by cosine similarity, in pieces that fit into memory, and their weighted vote."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dppmask.errors import UserError


class Neighbours:
    """The nearest bank entries of each query by cosine similarity; the bank comes in pieces and is not kept.

    Args:
        queries: ``[Q, D]``, of any length.
        k: How many neighbours to keep.
        chunk: Queries compared at a time.
    """

    def __init__(self, queries: Tensor, *, k: int, chunk: int = 1024) -> None:
        self.queries = F.normalize(queries.float(), dim=1)
        self.chunk = chunk
        self.similarity = queries.new_full(
            (len(queries), k), -torch.inf, dtype=torch.float32
        )  # [Q, k] descending
        self.index = torch.full((len(queries), k), -1, device=queries.device)  # [Q, k] of the whole bank
        self.bank_size = 0

    def update(self, bank: Tensor) -> None:
        """Compare with further bank entries ``[M, D]``."""
        bank = F.normalize(bank.float(), dim=1)
        new = torch.arange(self.bank_size, self.bank_size + len(bank), device=bank.device)
        k = self.index.shape[1]
        for start in range(0, len(self.queries), self.chunk):
            rows = slice(start, start + self.chunk)
            similarity = self.queries[rows] @ bank.T  # [chunk, M]
            candidates = torch.cat([self.similarity[rows], similarity], dim=1)
            ids = torch.cat([self.index[rows], new.expand_as(similarity)], dim=1)
            self.similarity[rows], best = candidates.topk(k, dim=1)
            self.index[rows] = ids.gather(1, best)
        self.bank_size += len(bank)

    def votes(self, targets: Tensor, *, k: int, temperature: float) -> Tensor:
        """Each query's weighted share of every class among its k nearest.

        Args:
            targets: ``[M, C]`` of the whole bank, one-hot or multi-hot.
            k: At most the number of neighbours kept.
            temperature: A neighbour of similarity s weighs ``exp(s / temperature)``.

        Returns:
            float32 ``[Q, C]`` on the CPU, rounded to six digits so that equal votes tie in whatever order
            they were added.
        """
        weights = (self.similarity[:, :k] / temperature).softmax(dim=1).cpu()  # [Q, k]
        index = self.index[:, :k].cpu()
        shares = torch.zeros(len(weights), targets.shape[1])
        for neighbour in range(k):
            shares += weights[:, neighbour, None] * targets[index[:, neighbour]]
        return shares.round(decimals=6)


def find_neighbours(queries: Tensor, bank: Iterable[Tensor], *, k: int) -> Neighbours:
    """The k nearest of a bank that comes in pieces ``[M_i, D]``.

    Raises:
        UserError: If the bank has fewer than k entries.
    """
    neighbours = Neighbours(queries, k=k)
    for piece in bank:
        neighbours.update(piece)
    check_neighbours(k, neighbours.bank_size)
    return neighbours


def check_neighbours(k: int, bank_size: int) -> None:
    """Raise UserError unless there are at least k images to be neighbours."""
    if k > bank_size:
        raise UserError(f"k must be at most the number of training images, {bank_size}, got {k}")


def check_ks(k: Sequence[int], temperature: float) -> None:
    """Raise UserError unless all k and the temperature are positive."""
    if not k or min(k) < 1:
        raise UserError(
            f"k must be one or several positive numbers, got {tuple(k)}; iBOT uses 10, 20, 100 and 200"
        )
    if temperature <= 0.0:
        raise UserError(f"temperature must be positive, got {temperature}; iBOT uses 0.07")
