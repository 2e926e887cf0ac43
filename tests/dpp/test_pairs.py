import math

import pytest
import torch
from kernel_cases import (
    degenerate_kernels,
    degenerate_parameters,
    patch_kernel,
    random_kernel,
    wrong_kernel,
)

from dppmask.dpp import expected_size, gaussian_kernel, marginal_kernel, naive, pair_marginals, sample_kdpp
from dppmask.dpp.pairs import eigenvector_chances
from dppmask.rng import fold_in


def enumerated(L, k=None):
    """Chance of every two items, from all subsets."""
    N = len(L)
    pairs = torch.zeros(N, N, dtype=torch.float64)
    for subset, probability in naive.probabilities(L, k).items():
        inside = torch.tensor([item in subset for item in range(N)]).double()
        pairs += probability * inside[:, None] * inside
    return pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [None, 0, 1, 2, 3, 5, 6])
def test_pairs_equal_naive(k, dtype):
    L = random_kernel(6, seed=1)
    actual = pair_marginals(L.to(dtype), k=k)
    assert actual.dtype == dtype
    expected = torch.tensor(
        [[naive.inclusion(L, (i, j), k) for j in range(6)] for i in range(6)], dtype=torch.float64
    )
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=0)
    assert not torch.allclose(actual.double(), enumerated(wrong_kernel(L), k), atol=1e-3) or k in (0, 6)


@pytest.mark.parametrize(("dtype", "name"), degenerate_parameters())
def test_pairs_of_degenerate_kernels(dtype, name):
    L, rank = degenerate_kernels(dtype)[name]
    sizes = [None, *range(rank + 1)] if name != "huge_low_rank" else range(rank + 1)
    for k in sizes:  # of a huge kernel of low rank enumeration sees nothing but rounding in larger sets
        torch.testing.assert_close(pair_marginals(L, k=k).double(), enumerated(L, k), atol=1e-6, rtol=0)


def test_huge_kernel_of_low_rank_draws_as_many_items_as_its_rank():
    L, rank = degenerate_kernels(torch.float64)["huge_low_rank"]
    torch.testing.assert_close(pair_marginals(L), pair_marginals(L, k=rank))


@pytest.mark.parametrize("bandwidth", [0.5, 3.0, 10.0])
def test_pairs_of_an_ill_conditioned_kernel(bandwidth):
    L = gaussian_kernel(
        torch.randn(8, 3, dtype=torch.float64, generator=fold_in(0)), bandwidth=bandwidth, normalize=False
    )
    for k in (2, 3, 5):
        torch.testing.assert_close(pair_marginals(L, k=k), enumerated(L, k), atol=1e-6, rtol=0)


def test_pairs_of_the_dpp_are_minors_of_the_marginal_kernel():
    L = patch_kernel(num_patches=40)
    K, pairs = marginal_kernel(L), pair_marginals(L)
    for i, j in [(0, 1), (3, 17), (39, 20)]:
        assert float(pairs[i, j]) == pytest.approx(naive.determinant(K, (i, j)), abs=1e-12)
    torch.testing.assert_close(pairs.diagonal(), K.diagonal())
    assert float(pairs.trace()) == pytest.approx(float(expected_size(L)))


@pytest.mark.parametrize("k", [1, 2, 49, 147, 195, 196])
def test_other_items_of_a_sample_are_k_minus_one(k):
    L = patch_kernel()
    pairs = pair_marginals(L, k=k)
    alone = pairs.diagonal()
    assert float(alone.sum()) == pytest.approx(k, rel=1e-11)
    torch.testing.assert_close(pairs.sum(1) - alone, (k - 1) * alone, rtol=1e-11, atol=1e-11)
    assert torch.equal(pairs, pairs.mT)
    assert ((pairs >= 0) & (pairs <= torch.minimum(alone[:, None], alone))).all() or k == 196


def test_items_of_a_sample_repel():
    pairs = pair_marginals(patch_kernel(num_patches=30), k=8)
    alone, others = pairs.diagonal(), ~torch.eye(30, dtype=torch.bool)
    independent = alone[:, None] * alone
    assert (pairs[others] < independent[others]).all()


def test_flat_spectrum_gives_random_masks():
    pairs = pair_marginals(3.0 * torch.eye(20, dtype=torch.float64), k=6)
    expected = torch.full((20, 20), 6 * 5 / (20 * 19), dtype=torch.float64).fill_diagonal_(6 / 20)
    torch.testing.assert_close(pairs, expected, atol=1e-13, rtol=0)


def test_rank_of_exactly_k_gives_the_projection_dpp():
    L = random_kernel(7, rank=3, seed=2)
    basis = torch.linalg.qr(L[:, :3]).Q
    K = basis @ basis.mT
    expected = K.diagonal()[:, None] * K.diagonal() - K.square() + torch.diag(K.diagonal())
    torch.testing.assert_close(pair_marginals(L, k=3), expected, atol=1e-12, rtol=0)


def test_repeated_items_are_never_together():
    rows = [0, 1, 2, 1]
    L = random_kernel(3, seed=3)[rows][:, rows]
    for k in (None, 2, 3):
        assert 0 <= float(pair_marginals(L, k=k)[1, 3]) < 1e-15


@pytest.mark.parametrize(("R", "k"), [(1, 1), (2, 1), (5, 2), (6, 4), (6, 6)])
def test_eigenvector_chances_equal_polynomials_over_subsets(R, k):
    spectrum = torch.logspace(-4, 4, R, dtype=torch.float64)
    one, two = eigenvector_chances(spectrum.log(), k)
    values, total = spectrum.tolist(), naive.elementary_symmetric_polynomial(spectrum.tolist(), k)
    for m in range(R):
        rest = [values[i] for i in range(R) if i != m]
        expected = values[m] * naive.elementary_symmetric_polynomial(rest, k - 1) / total
        assert float(one[m]) == pytest.approx(expected, rel=1e-12)
        for n in range(R):
            rest = [values[i] for i in range(R) if i not in (m, n)]
            expected = naive.elementary_symmetric_polynomial(rest, k - 2) if k > 1 and m != n else 0.0
            assert float(two[m, n]) == pytest.approx(values[m] * values[n] * expected / total, rel=1e-12)


def test_eigenvector_chances_of_a_spectrum_beyond_any_float():
    log_values = torch.linspace(-2000, 2000, 40, dtype=torch.float64)  # the 10 largest win by e^102 each
    one, two = eigenvector_chances(log_values, 10)
    expected = (torch.arange(40) >= 30).double()
    torch.testing.assert_close(one, expected)
    torch.testing.assert_close(two, expected[:, None] * expected - torch.diag(expected))


@pytest.mark.parametrize("k", [None, 5])
def test_permuting_and_scaling(k):
    L = random_kernel(9, seed=4)
    order = torch.randperm(9, generator=fold_in(1))
    pairs = pair_marginals(L, k=k)
    torch.testing.assert_close(pair_marginals(L[order][:, order], k=k), pairs[order][:, order])
    if k is not None:
        torch.testing.assert_close(pair_marginals(1e20 * L, k=k), pairs)


@pytest.mark.parametrize("k", [None, 0, 3])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_batch_shape(batch, k):
    L = random_kernel(*batch, 5)
    pairs = pair_marginals(L, k=k)
    assert pairs.shape == (*batch, 5, 5)
    for kernel, expected in zip(L.reshape(-1, 5, 5), pairs.reshape(-1, 5, 5), strict=True):
        torch.testing.assert_close(pair_marginals(kernel, k=k), expected)


@pytest.mark.parametrize("method", ["spectral", "rejection"])
def test_samples_have_these_pairs(method):
    N, k, draws = 16, 5, 20_000
    L = patch_kernel(num_patches=N)
    items = sample_kdpp(L.expand(draws, N, N), k, generator=fold_in(2), method=method)
    visible = torch.zeros(draws, N, dtype=torch.float64).scatter(1, items, 1.0)
    shares, upper = visible.mT @ visible / draws, torch.ones(N, N).triu().bool()

    def deviations(kernel):
        expected = pair_marginals(kernel, k=k)
        return ((shares - expected) / (expected * (1 - expected) / draws).sqrt())[upper]

    assert deviations(L).abs().max() < 4.5
    assert deviations(L).square().mean() < 1.5
    assert deviations(wrong_kernel(L)).abs().max() > 6
    assert deviations(wrong_kernel(L)).square().mean() > 4


@pytest.mark.parametrize("k", [None, 3])
def test_autocast_and_half_precision(k):
    L = random_kernel(3, 8, dtype=torch.float32)
    expected = pair_marginals(L, k=k)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pair_marginals(L, k=k), expected)
    assert torch.equal(pair_marginals(L.bfloat16(), k=k), pair_marginals(L.bfloat16().float(), k=k))


def test_there_is_no_kdpp_above_the_rank():
    words = "k must not exceed the numerical rank of L, got k=2 and a kernel of rank 1"
    with pytest.raises(ValueError, match=words):
        pair_marginals(torch.stack([torch.eye(3), torch.ones(3, 3)]), k=2)
    with pytest.raises(ValueError, match=r"k must be in \[0, 3\]"):
        pair_marginals(torch.eye(3), k=4)
    with pytest.raises(ValueError, match="L must be finite"):
        pair_marginals(torch.full((3, 3), math.nan))
