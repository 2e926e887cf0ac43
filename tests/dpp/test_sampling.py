from collections import Counter

import numpy as np
import pytest
import torch
from kernel_cases import (
    chi_square_p_value,
    counts_of_subsets,
    degenerate_kernels,
    degenerate_parameters,
    law_of_subsets,
    patch_kernel,
    random_kernel,
    wrong_kernel,
)
from scipy import stats

from dppmask.dpp import gaussian_kernel, kdpp_from_noise, naive, sample_dpp, sample_kdpp
from dppmask.dpp.spectrum import decompose
from dppmask.rng import fold_in

DRAWS = 20_000
METHODS = pytest.mark.parametrize("method", ["spectral", "rejection"])
REJECTED, ACCEPTED = 1e-9, 1e-3  # seeds are fixed: a right sampler passes for good


def quality_kernel(N, *, seed=0):
    """Items of very different quality."""
    quality = torch.logspace(-1, 1, N, dtype=torch.float64)
    return quality * random_kernel(N, seed=seed) * quality[:, None]


def repeated_kernel():
    rows = [0, 1, 1, 2, 3, 3]
    return random_kernel(4, seed=3)[rows][:, rows]


LAWS = {
    "generic": random_kernel(5, seed=1),
    "seven": random_kernel(7, seed=2),
    "gaussian": 2 * gaussian_kernel(torch.randn(6, 3, dtype=torch.float64, generator=fold_in(4))),
    "repeated": repeated_kernel(),
    "low_rank": random_kernel(6, rank=3, seed=5),
    "quality": quality_kernel(6, seed=6),
    "diagonal": torch.diag(torch.tensor([0.1, 1.0, 3.0, 0.0, 0.5], dtype=torch.float64)),
}


def as_masks(items, N):
    return torch.zeros(*items.shape[:-1], N, dtype=torch.bool).scatter(-1, items, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAWS)
def test_dpp_has_the_enumerated_law(name, dtype):
    L = LAWS[name]
    masks = sample_dpp(L.to(dtype).expand(DRAWS, -1, -1), generator=fold_in(0, len(L)))
    counts = counts_of_subsets(masks)
    assert chi_square_p_value(counts, law_of_subsets(L)) > ACCEPTED
    assert chi_square_p_value(counts, law_of_subsets(wrong_kernel(L))) < REJECTED


@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("name", LAWS)
def test_kdpp_has_the_enumerated_law(name, k, dtype, method):
    L = LAWS[name]
    items = sample_kdpp(L.to(dtype).expand(DRAWS, -1, -1), k, generator=fold_in(1, len(L), k), method=method)
    counts = counts_of_subsets(as_masks(items, len(L)))
    assert chi_square_p_value(counts, law_of_subsets(L, k)) > ACCEPTED
    assert chi_square_p_value(counts, law_of_subsets(wrong_kernel(L), k)) < REJECTED


def test_items_of_extremely_different_quality_keep_their_law():
    quality = torch.tensor([1e-7, 2e-7, 1.0, 1e6, 3e6], dtype=torch.float64)
    L = quality * random_kernel(5, seed=7) * quality[:, None]
    masks = as_masks(sample_kdpp(L.expand(DRAWS, -1, -1), 4, generator=fold_in(2)), 5)
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(L, 4)) > ACCEPTED
    swapped = L[[1, 0, 2, 3, 4]][:, [1, 0, 2, 3, 4]]
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(swapped, 4)) < REJECTED


def test_each_kernel_of_a_batch_has_its_own_law():
    kernels = torch.stack([LAWS["gaussian"], LAWS["repeated"], LAWS["low_rank"], LAWS["quality"]]).reshape(
        2, 2, 6, 6
    )
    draws = sample_kdpp(kernels.expand(DRAWS // 2, 2, 2, 6, 6), 3, generator=fold_in(3))
    assert draws.shape == (DRAWS // 2, 2, 2, 3)
    for row, column in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        counts = counts_of_subsets(as_masks(draws[:, row, column], 6))
        assert chi_square_p_value(counts, law_of_subsets(kernels[row, column], 3)) > ACCEPTED
        assert chi_square_p_value(counts, law_of_subsets(kernels[1 - row, column], 3)) < REJECTED


def test_draws_of_one_batch_are_independent():
    L = LAWS["generic"]
    items = sample_kdpp(L.expand(DRAWS, 2, -1, -1), 1, generator=fold_in(4))[..., 0]
    table = (items[:, 0] * 5 + items[:, 1]).bincount(minlength=25).reshape(5, 5)
    assert stats.chi2_contingency(table.numpy()).pvalue > ACCEPTED


def dppy_counts(kernel, k, draws, seed):
    finite_dpps = pytest.importorskip("dppy.finite_dpps")
    process = finite_dpps.FiniteDPP("likelihood", L=kernel.numpy())
    random_state = np.random.RandomState(seed)
    return Counter(
        tuple(sorted(process.sample_exact_k_dpp(k, random_state=random_state))) for _ in range(draws)
    )


def test_kdpp_agrees_with_dppy():
    N, k, draws = 6, 2, 1500
    L = random_kernel(N, seed=8)

    def p_value(theirs):
        ours = Counter(map(tuple, sample_kdpp(L.expand(draws, N, N), k, generator=fold_in(5)).tolist()))
        table = np.array([[counts[subset] for subset in naive.subsets(N, k)] for counts in (ours, theirs)])
        return stats.chi2_contingency(table[:, table.sum(0) > 10]).pvalue

    assert p_value(dppy_counts(L, k, draws, seed=0)) > ACCEPTED
    assert p_value(dppy_counts(wrong_kernel(L), k, draws, seed=0)) < REJECTED


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_any_batch_shape(batch):
    L = random_kernel(*batch, 6)
    items = sample_kdpp(L, 4, generator=fold_in(6))
    assert items.shape == (*batch, 4)
    assert items.dtype == torch.int64
    assert (items.diff(dim=-1) > 0).all()
    assert ((items >= 0) & (items < 6)).all()
    masks = sample_dpp(L, generator=fold_in(6))
    assert masks.shape == (*batch, 6)
    assert masks.dtype == torch.bool


@METHODS
@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1e6, 1e30])
def test_kdpp_ignores_the_scale_of_the_kernel(factor, method):
    L = torch.cat([patch_kernel(4, num_patches=40), patch_kernel(4, num_patches=40) ** 8])
    expected = sample_kdpp(L, 10, generator=fold_in(7), method=method)
    assert torch.equal(sample_kdpp(L * factor, 10, generator=fold_in(7), method=method), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sample_of_an_image(dtype):
    L = patch_kernel(8, dtype=dtype)
    items = sample_kdpp(L, 49, generator=fold_in(8))
    assert (items.diff(dim=-1) > 0).all()
    log_det = torch.stack(
        [torch.linalg.slogdet(m[s][:, s]).logabsdet for m, s in zip(L.double(), items, strict=True)]
    )
    uniform = torch.rand(8, 196, generator=fold_in(9)).argsort(1)[:, :49]
    log_det_uniform = torch.stack(
        [torch.linalg.slogdet(m[s][:, s]).logabsdet for m, s in zip(L.double(), uniform, strict=True)]
    )
    assert (log_det - log_det_uniform).mean() > 2


def test_marginals_at_the_size_of_an_image():
    N, k, draws = 40, 10, 2000
    L = patch_kernel(num_patches=N)
    values, vectors = torch.linalg.eigh(L)

    # chance of eigenvector n: λ_n e_(k-1)(others) / e_k(all), by leaving each out in turn
    def e(spectrum, degree):
        polynomial = np.poly1d([1.0])
        for value in spectrum.tolist():
            polynomial = polynomial * np.poly1d([value, 1.0])
        return polynomial.coeffs[::-1][degree]

    chance = torch.tensor([float(values[n]) * e(np.delete(values.numpy(), n), k - 1) for n in range(N)])
    chance = chance.double() / e(values.numpy(), k)
    expected = vectors.square() @ chance
    assert float(expected.sum()) == pytest.approx(k)
    masks = as_masks(sample_kdpp(L.expand(draws, N, N), k, generator=fold_in(10)), N)
    deviation = (masks.double().mean(0) - expected) / (expected * (1 - expected) / draws).sqrt()
    assert deviation.abs().max() < 4.5
    assert deviation.square().mean() < 1.8


@METHODS
@pytest.mark.parametrize("k", [0, 1, 4, 5])
def test_every_size(k, method):
    L = random_kernel(3, 5)
    items = sample_kdpp(L, k, generator=fold_in(11), method=method)
    assert items.shape == (3, k)
    if k == 5:
        assert items.tolist() == [[0, 1, 2, 3, 4]] * 3


@METHODS
@pytest.mark.parametrize(("dtype", "name"), degenerate_parameters())
def test_degenerate_kernels(dtype, name, method):
    L, rank = degenerate_kernels(dtype)[name]
    N = len(L)
    positive = (L.diagonal() > 0).nonzero()[:, 0].tolist()
    items = sample_kdpp(L.expand(50, N, N), rank, generator=fold_in(12), method=method)
    assert (items.diff(dim=-1) > 0).all()
    assert set(items.flatten().tolist()) <= set(positive)
    assert (sample_dpp(L.expand(50, N, N), generator=fold_in(13)).sum(1) <= rank).all()
    if rank < N:
        with pytest.raises(ValueError, match=f"k={rank + 1} and a kernel of rank {rank}"):
            sample_kdpp(L, rank + 1, method=method)
        noise = torch.rand(50, N, generator=fold_in(14))
        smaller = kdpp_from_noise(L.expand(50, N, N), rank + 1, noise, method=method)
        assert (smaller.sum(1) == rank).all()


def test_repeated_items_are_never_drawn_together():
    items = sample_kdpp(repeated_kernel().expand(2000, -1, -1), 3, generator=fold_in(15))
    masks = as_masks(items, 6)
    assert not (masks[:, 1] & masks[:, 2]).any()
    assert not (masks[:, 4] & masks[:, 5]).any()


def test_huge_kernel_gives_the_projection_dpp():
    L = 1e20 * random_kernel(6, rank=3)
    assert (sample_dpp(L.expand(100, 6, 6), generator=fold_in(16)).sum(1) == 3).all()


def test_a_row_of_too_low_rank_is_named():
    L = torch.stack([random_kernel(4), random_kernel(4, rank=2)])
    with pytest.raises(
        ValueError, match="k must not exceed the numerical rank of L, got k=3 and a kernel of rank 2"
    ):
        sample_kdpp(L, 3)


def test_generators_decide(global_rng_untouched):
    L = patch_kernel(8, num_patches=30)
    for sample in (sample_dpp, lambda L, generator: sample_kdpp(L, 7, generator=generator)):
        one, same, other = (sample(L, generator=fold_in(seed)) for seed in (0, 0, 1))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_without_a_generator_torch_decides():
    L = patch_kernel(8, num_patches=30)
    state = torch.get_rng_state()
    one = sample_kdpp(L, 7)
    assert not torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    assert torch.equal(sample_kdpp(L, 7), one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pure_function_of_noise_has_the_enumerated_law(dtype):
    L = LAWS["gaussian"]
    noise = torch.rand(DRAWS, 6, dtype=dtype, generator=fold_in(17))
    masks = kdpp_from_noise(L.expand(DRAWS, 6, 6), 3, noise)
    assert torch.equal(masks, kdpp_from_noise(L.expand(DRAWS, 6, 6), 3, noise))
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(L, 3)) > ACCEPTED


@pytest.mark.parametrize("value", [0.0, 1 - 2**-24, 1 - 2**-53])
def test_noise_at_the_ends_of_its_range(value):
    L = patch_kernel(3, num_patches=20)
    assert (kdpp_from_noise(L, 6, torch.full((3, 20), value, dtype=torch.float64)).sum(1) == 6).all()


def test_autocast_changes_nothing():
    L = patch_kernel(2, num_patches=40, dtype=torch.float32)
    expected = sample_kdpp(L, 9, generator=fold_in(18)), sample_dpp(L, generator=fold_in(18))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = sample_kdpp(L, 9, generator=fold_in(18)), sample_dpp(L, generator=fold_in(18))
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


def test_half_precision_and_gradients_are_accepted():
    L = random_kernel(3, 6).half()
    expected = sample_kdpp(L.float(), 3, generator=fold_in(19))
    assert torch.equal(sample_kdpp(L, 3, generator=fold_in(19)), expected)
    assert torch.equal(sample_kdpp(L.float().requires_grad_(), 3, generator=fold_in(19)), expected)


@pytest.mark.parametrize("batch", [3, 4])
def test_threads_change_neither_the_spectrum_nor_the_setting(batch):
    L = patch_kernel(batch, num_patches=30)
    expected = decompose(L)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        actual = decompose(L)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@pytest.mark.gpu
def test_cpu_generator_gives_the_same_sample_on_the_gpu():
    L = patch_kernel(2, num_patches=20)
    expected = sample_kdpp(L, 5, generator=fold_in(20))
    assert torch.equal(sample_kdpp(L.cuda(), 5, generator=fold_in(20)).cpu(), expected)


@pytest.mark.parametrize("k", [-1, 5])
def test_k_outside_range(k):
    with pytest.raises(ValueError, match=rf"k must be in \[0, 4\] for 4 items, got {k}"):
        sample_kdpp(torch.eye(4), k)


@pytest.mark.parametrize(
    "sample",
    [sample_dpp, lambda L: sample_kdpp(L, 1), lambda L: sample_kdpp(L, 1, method="spectral")],
    ids=["dpp", "kdpp", "spectral"],
)
def test_what_is_no_kernel_is_refused(sample):
    with pytest.raises(ValueError, match="L must be positive semi-definite"):
        sample(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="L must be positive semi-definite"):
        sample(torch.diag(torch.tensor([1.0, -1.0])))
    with pytest.raises(ValueError, match="L must be finite"):
        sample(torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match=r"L must have shape \[..., N, N\]"):
        sample(torch.ones(2, 3))
