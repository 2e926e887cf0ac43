import math
from itertools import pairwise

import pytest
import torch
from kernel_cases import degenerate_kernels, degenerate_parameters, patch_kernel, random_kernel

from dppmask.dpp import expected_size, greedy_map, log_esp, log_prob, marginal_kernel, naive
from dppmask.rng import fold_in


def masks_of(subsets, N):
    return torch.tensor([[item in subset for item in range(N)] for subset in subsets])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [None, 0, 1, 3, 5])
def test_log_prob_equals_naive(k, dtype):
    L = random_kernel(5, seed=1)
    law = naive.probabilities(L, k)
    actual = log_prob(L.to(dtype), masks_of(law, 5), k=k)
    assert actual.dtype == dtype
    expected = torch.tensor(list(law.values()), dtype=dtype)
    torch.testing.assert_close(actual.exp(), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "name"), degenerate_parameters())
def test_log_prob_of_degenerate_kernels_sums_to_one(dtype, name):
    L, rank = degenerate_kernels(dtype)[name]
    N = len(L)
    subsets = naive.subsets(N)
    log_probabilities = log_prob(L, masks_of(subsets, N))
    assert float(log_probabilities.exp().sum()) == pytest.approx(1, abs=1e-4)
    too_large = torch.tensor([len(subset) > rank for subset in subsets])
    assert (log_probabilities[too_large] == -torch.inf).all()
    of_size = log_prob(L, masks_of(subsets, N), k=rank)
    assert float(of_size.exp().sum()) == pytest.approx(1, abs=1e-4)
    assert (of_size[torch.tensor([len(subset) != rank for subset in subsets])] == -torch.inf).all()


def test_padded_indices_equal_masks():
    L = random_kernel(3, 6)
    items = torch.tensor([[4, 1, -1, -1], [-1, 0, -1, 5], [-1, -1, -1, -1]])
    masks = masks_of([{1, 4}, {0, 5}, set()], 6)
    assert torch.equal(log_prob(L, items), log_prob(L, masks))
    assert torch.equal(log_prob(L, items[:, :0]), log_prob(L, torch.zeros_like(masks)))


def test_leading_dimensions_broadcast():
    L = random_kernel(2, 1, 4)
    masks = masks_of(naive.subsets(4), 4)
    actual = log_prob(L, masks)
    assert actual.shape == (2, 16)
    for row in range(2):
        torch.testing.assert_close(actual[row], log_prob(L[row, 0], masks))
    torch.testing.assert_close(log_prob(L, masks[3]), actual[:, 3:4])


def test_single_kernel_and_set():
    L = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    assert float(log_prob(L, torch.tensor([1]))) == pytest.approx(math.log(3 / 8))
    assert float(log_prob(L, torch.tensor([1]), k=1)) == pytest.approx(math.log(3 / 4))


def test_order_of_items_does_not_matter():
    L = patch_kernel(num_patches=40)
    items = greedy_map(L, 12).items
    shuffled = items[torch.randperm(12, generator=fold_in(0))]
    torch.testing.assert_close(log_prob(L, shuffled), log_prob(L, items))


def test_log_prob_equals_greedy_gains():
    L = patch_kernel(2, num_patches=60)
    selection = greedy_map(L, 20)
    expected = selection.gains.log().sum(1) - torch.logdet(L + torch.eye(60, dtype=L.dtype))
    torch.testing.assert_close(log_prob(L, selection.items), expected)


def test_probability_one_of_the_whole_set():
    L = random_kernel(6)
    assert float(log_prob(L, torch.ones(6, dtype=torch.bool), k=6)) == pytest.approx(0, abs=1e-9)


def test_repeated_item_makes_the_set_impossible():
    rows = [0, 1, 2, 1]
    L = random_kernel(3)[rows][:, rows]
    assert log_prob(L, torch.tensor([1, 3])) == -torch.inf
    assert log_prob(L, torch.tensor([1, 2])) > -torch.inf


@pytest.mark.parametrize("k", [None, 2])
def test_gradient_of_log_prob(k):
    factors = torch.randn(4, 4, dtype=torch.float64, generator=fold_in(1)).requires_grad_()
    members = torch.tensor([True, False, True, False])
    assert torch.autograd.gradcheck(lambda factors: log_prob(factors @ factors.mT, members, k=k), factors)


def test_log_prob_refuses_what_is_no_subset():
    L = torch.eye(4)
    with pytest.raises(ValueError, match="items must all differ within a subset"):
        log_prob(L, torch.tensor([1, 2, 1]))
    with pytest.raises(ValueError, match=r"items must be in \[-1, 3\], got 0 to 4"):
        log_prob(L, torch.tensor([0, 4]))
    with pytest.raises(ValueError, match=r"items must be in \[-1, 3\], got -2 to 1"):
        log_prob(L, torch.tensor([-2, 1]))
    with pytest.raises(ValueError, match=r"items must have shape \[..., 4\]"):
        log_prob(L, torch.tensor([True, False]))
    with pytest.raises(TypeError, match="items must be bool or int64"):
        log_prob(L, torch.tensor([0.0, 1.0]))


def test_there_is_no_kdpp_above_the_rank():
    with pytest.raises(
        ValueError, match="k must not exceed the numerical rank of L, got k=2 and a kernel of rank 1"
    ):
        log_prob(torch.ones(3, 3), torch.tensor([0, 1]), k=2)
    with pytest.raises(ValueError, match=r"k must be in \[0, 3\]"):
        log_prob(torch.eye(3), torch.tensor([0, 1]), k=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_marginal_kernel_gives_inclusion_probabilities(dtype):
    L = random_kernel(5, seed=2)
    K = marginal_kernel(L.to(dtype))
    assert K.dtype == dtype
    for subset in naive.subsets(5):
        assert naive.determinant(K, subset) == pytest.approx(naive.inclusion(L, subset), abs=1e-5)


def test_kdpp_inclusion_probabilities_sum_to_k():
    L = random_kernel(5, seed=3)
    masks = masks_of(naive.subsets(5), 5)
    for k in range(6):
        inclusion = log_prob(L, masks, k=k).exp() @ masks.double()
        assert float(inclusion.sum()) == pytest.approx(k)
        expected = [naive.inclusion(L, (item,), k) for item in range(5)]
        torch.testing.assert_close(inclusion, torch.tensor(expected, dtype=L.dtype))


@pytest.mark.parametrize(("dtype", "name"), degenerate_parameters())
def test_marginal_kernel_of_degenerate_kernels(dtype, name):
    L, rank = degenerate_kernels(dtype)[name]
    K = marginal_kernel(L)
    eps = 10 * torch.finfo(dtype).eps
    spectrum = torch.linalg.eigvalsh(K.double())
    assert spectrum.min() >= -eps
    assert spectrum.max() <= 1 + eps
    assert torch.equal(K, K.mT)
    size = float(expected_size(L))
    assert size == pytest.approx(float(K.trace()), abs=1e-5)
    assert size <= rank + eps
    limits = {"tiny": 0, "zero": 0, "huge": 5, "huge_low_rank": 2}
    if name in limits:
        assert size == pytest.approx(limits[name], abs=1e-6)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_any_batch_shape(batch):
    L = random_kernel(*batch, 5)
    assert marginal_kernel(L).shape == (*batch, 5, 5)
    assert expected_size(L).shape == batch
    assert log_prob(L, torch.tensor([0, 2])).shape == batch
    torch.testing.assert_close(marginal_kernel(L), torch.linalg.solve(L + torch.eye(5, dtype=L.dtype), L))


def test_permuting_items_permutes_the_marginals():
    L = random_kernel(7, seed=4)
    order = torch.randperm(7, generator=fold_in(2))
    torch.testing.assert_close(marginal_kernel(L[order][:, order]), marginal_kernel(L)[order][:, order])


def test_expected_size_equals_naive():
    L = random_kernel(6, seed=5)
    expected = sum(len(subset) * p for subset, p in naive.probabilities(L).items())
    assert float(expected_size(L)) == pytest.approx(expected)


def test_quality_of_extreme_range_is_resolved():
    quality = torch.tensor([1e-12, 1e-6, 1.0, 1e6, 1e8], dtype=torch.float64)
    S = random_kernel(5, seed=6)
    S = S / (S.diagonal().sqrt() * S.diagonal().sqrt()[:, None])
    L = quality.sqrt() * S * quality.sqrt()[:, None]
    expected = [naive.inclusion(L, (item,)) for item in range(5)]
    torch.testing.assert_close(
        marginal_kernel(L).diagonal(), torch.tensor(expected, dtype=L.dtype), rtol=1e-6, atol=1e-16
    )


@pytest.mark.parametrize(
    "function", [marginal_kernel, expected_size, lambda L: log_prob(L, torch.tensor([0, 3]), k=2)]
)
def test_autocast_and_half_precision(function):
    L = random_kernel(3, 8, dtype=torch.float32)
    expected = function(L)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(function(L), expected)
    assert torch.equal(function(L.bfloat16()), function(L.bfloat16().float()))


@pytest.mark.parametrize(("N", "k"), [(1, 0), (1, 1), (4, 0), (5, 3), (8, 8)])
def test_log_esp_equals_sum_over_subsets(N, k):
    spectrum = torch.rand(2, N, dtype=torch.float64, generator=fold_in(0, N, k))
    expected = [naive.elementary_symmetric_polynomial(row, k) for row in spectrum.tolist()]
    actual = log_esp(spectrum.log(), k)[:, -1, -1].exp()
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype))


def test_log_esp_of_every_prefix():
    spectrum = torch.rand(6, dtype=torch.float64, generator=fold_in(3))
    table = log_esp(spectrum.log(), 4)
    assert table.shape == (7, 5)
    for n in range(7):
        for k in range(5):
            expected = naive.elementary_symmetric_polynomial(spectrum[:n].tolist(), k)
            assert float(table[n, k].exp()) == pytest.approx(expected)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_log_esp_takes_any_batch(batch):
    log_spectrum = torch.randn(*batch, 5, generator=fold_in(4))
    table = log_esp(log_spectrum, 3)
    assert table.shape == (*batch, 6, 4)
    for row, expected in zip(log_spectrum.reshape(-1, 5), table.reshape(-1, 6, 4), strict=True):
        torch.testing.assert_close(log_esp(row, 3), expected)


def test_log_esp_equals_dppy():
    sampling = pytest.importorskip("dppy.exact_sampling")
    spectrum = torch.rand(30, dtype=torch.float64, generator=fold_in(5))
    expected = sampling.elementary_symmetric_polynomials(spectrum.numpy(), 12)
    torch.testing.assert_close(
        log_esp(spectrum.log(), 12).exp(), torch.from_numpy(expected).mT, rtol=1e-9, atol=0
    )


def test_log_esp_of_a_flat_spectrum_is_the_binomial_beyond_float32():
    table = log_esp(torch.zeros(196, dtype=torch.float64), 49)
    assert float(table[-1, -1]) == pytest.approx(math.log(math.comb(196, 49)))
    assert float(table[-1, -1]) / math.log(10) == pytest.approx(46.7, abs=0.1)
    assert float(log_esp(torch.full((196,), 50.0), 49)[-1, -1]) == pytest.approx(
        49 * 50 + math.log(math.comb(196, 49)), rel=1e-5
    )


def test_log_esp_skips_null_directions():
    log_spectrum = torch.tensor([0.0, -torch.inf, 1.0, -torch.inf])
    table = log_esp(log_spectrum, 4)
    assert table[-1, 2] == 1.0
    assert (table[-1, 3:] == -torch.inf).all()
    assert not table.isnan().any()


def test_log_esp_grows_with_every_eigenvalue():
    table = log_esp(torch.randn(10, dtype=torch.float64, generator=fold_in(6)), 4)
    for before, after in pairwise(table[4:, 1:]):
        assert (after > before).all()


@pytest.mark.parametrize("k", [-1, 4])
def test_log_esp_k_outside_range(k):
    with pytest.raises(ValueError, match=rf"k must be in \[0, 3\] for 3 items, got {k}"):
        log_esp(torch.zeros(2, 3), k)
