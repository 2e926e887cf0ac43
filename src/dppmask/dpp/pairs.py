"""How likely two items are in the same sample of a DPP or k-DPP, from the spectrum of the kernel."""

import torch
from torch import Tensor

from dppmask.dpp.checks import as_kernel, check_size, no_autocast
from dppmask.dpp.likelihood import check_rank, log_esp
from dppmask.dpp.spectrum import decompose


@torch.no_grad()
def pair_marginals(L: Tensor, *, k: int | None = None) -> Tensor:
    """Chance that items i and j are both in a sample of the DPP, or the k-DPP, of ``L``.

    A sample is one of a projection DPP, which the eigenvectors J span, and J is random. Of the DPP, entry
    (i, j) is ``K_ii K_jj - K_ij²`` with K the marginal kernel. Of the k-DPP it is the sum over eigenvectors
    m ≠ n of ``P(m, n ∈ J) (v_im² v_jn² - v_im v_jm v_in v_jn)``, in O(N⁴) for each kernel. Worked out in
    float64, where no more than 1e-12 is lost.

    Args:
        L: Likelihood kernel ``[..., N, N]``.
        k: Size of the k-DPP; None = the DPP.

    Returns:
        ``[..., N, N]``, symmetric, in [0, 1] and in the precision of ``L``. The diagonal holds the chance of
        each item alone; of the k-DPP every row sums to k times that.

    Raises:
        ValueError: If ``k`` is outside [0, N], the numerical rank of a kernel is below ``k``, so that there
            is no k-DPP, or ``L`` is not finite and positive semi-definite (looked at on the CPU only).

    Source: Kulesza and Taskar (2012), sections 2.1 and 5.2.
    """
    L = as_kernel(L)
    N = L.shape[-1]
    with no_autocast(L):
        values, vectors = decompose(L)
        if k is None:
            return _of_dpp(values, vectors).to(L.dtype)
        check_size(k, N)
        check_rank((values > 0).sum(-1), k)
        rows = zip(values.reshape(-1, N), vectors.reshape(-1, N, N), strict=True)
        pairs = torch.zeros_like(vectors).reshape(-1, N, N)
        for row, spectrum in enumerate(rows) if k else ():
            pairs[row] = _of_kdpp(*spectrum, k)
    return pairs.reshape(L.shape).to(L.dtype)


def eigenvector_chances(log_values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """How likely each eigenvector, and every two, are among the k that span a sample of the k-DPP.

    ``P(n ∈ J) = λ_n e_(k-1) / e_k`` and ``P(m, n ∈ J) = λ_m λ_n e_(k-2) / e_k``, the numerators' polynomials
    without the eigenvalues that stand before them. Those come from products of polynomials of the eigenvalues
    before and after the one left out: sums of positive terms, in log space, so that nothing cancels.

    Args:
        log_values: Log-eigenvalues ``[R]``, finite.
        k: From 1 to R.

    Returns:
        ``[R]``, and ``[R, R]`` with a diagonal of 0.

    Source: Kulesza and Taskar (2012), section 5.2.
    """
    each = torch.eye(len(log_values), dtype=torch.bool, device=log_values.device)
    without = log_values.expand_as(each).masked_fill(each, -torch.inf)  # row m lacks eigenvalue m
    before = log_esp(without, k - 1)  # [m, n, j]: degree j, of the first n
    after = log_esp(without.flip(-1), k - 1).flip(-2)  # [m, n, j]: of all but the first n
    split = before[:, :-1, :-1] + after[:, 1:, :-1].flip(-1)  # [m, n, j]: j before n and k - 2 - j after it
    log_normaliser = log_esp(log_values, k)[-1, -1]
    one = (log_values + before[:, -1, -1] - log_normaliser).exp()
    two = (log_values[:, None] + log_values + split.logsumexp(-1) - log_normaliser).exp()
    return one, two.masked_fill(each, 0.0)


def _of_dpp(values: Tensor, vectors: Tensor) -> Tensor:
    """Spectrum ``[..., N]`` and ``[..., N, N]`` → ``[..., N, N]``."""
    half = vectors * (values / (1 + values)).sqrt()[..., None, :]
    K = half @ half.mT
    alone = K.diagonal(dim1=-2, dim2=-1)
    return _assemble(alone, alone[..., :, None] * alone[..., None, :] - K.square())


def _of_kdpp(values: Tensor, vectors: Tensor, k: int) -> Tensor:
    """Spectrum ``[N]`` and ``[N, N]`` of a kernel of rank k or more → ``[N, N]``."""
    regular = values > 0
    vectors = vectors[:, regular]  # [N, R]
    one, two = eigenvector_chances(values[regular].log(), k)
    squares = vectors.square()
    pairs = squares @ two @ squares.mT
    for item, vector in enumerate(vectors):
        products = vector * vectors  # [N, R]
        pairs[item] -= ((products @ two) * products).sum(-1)
    return _assemble(squares @ one, pairs)


def _assemble(alone: Tensor, pairs: Tensor) -> Tensor:
    """Chances of items ``[..., N]`` on the diagonal of those of pairs ``[..., N, N]``, all within [0, 1]."""
    pairs = (pairs + pairs.mT) / 2
    pairs.diagonal(dim1=-2, dim2=-1).copy_(alone)
    return pairs.clamp(0.0, 1.0)
