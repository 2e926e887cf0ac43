"""Both exact samplers of a k-DPP, on photographs and small kernels: one law, and what has no effect on it."""

import warnings

import pytest
import torch
from kernel_cases import (
    chi_square_p_value,
    counts_of_subsets,
    law_of_subsets,
    patch_kernel,
    random_kernel,
    wrong_kernel,
)
from scipy import stats

from dppmask.dpp import gaussian_kernel, kdpp_from_noise, rejection, sample_dpp, sample_kdpp, spectral
from dppmask.dpp.backends import ops
from dppmask.dpp.scaling import scale_to_size
from dppmask.dpp.uniforms import digest
from dppmask.masks.features import patch_pixels
from dppmask.rng import fold_in
from pasted_objects import pasted_objects

ACCEPTED, REJECTED = 1e-3, 1e-9
METHODS = pytest.mark.parametrize("method", ["spectral", "rejection"])


@pytest.fixture(params=["numba", "torch"])
def backend(request, use_backend):
    """The sequential draws of either CPU backend."""
    if request.param == "numba":
        pytest.importorskip("numba")
    use_backend(request.param)


@pytest.fixture(scope="module")
def photographs():
    """Float32 kernels ``[12, 196, 196]`` of the pixels of photographs."""
    return gaussian_kernel(patch_pixels(pasted_objects(12).images, (14, 14)))


def by_rejection(L, k, *, seed=0):
    noise = torch.rand(*L.shape[:-1], dtype=torch.float64, generator=fold_in(2, seed))
    return rejection.sample_sized(L, torch.full(L.shape[:1], k), digest(noise))


def inclusion_probabilities(L, k):
    """Of each item of the k-DPP of ``L [N, N]``: eigenvectors squared, times the chance of each of them.

    With Bernoulli chances p = λ / (1 + λ) eigenvector n is in a set of k with chance p_n P(k - 1 of the
    others) / P(k of all): no polynomial, and no number beyond 1.
    """
    values, vectors = torch.linalg.eigh(L.double())
    values = values.clamp(min=0) * 2 ** torch.linspace(-12, 12, 49, dtype=torch.float64)[:, None]
    odds = values[
        (values / (1 + values)).sum(1).sub(k).abs().argmin()
    ]  # any scale; this one suits the numbers
    p = odds / (1 + odds)

    def size_law(chances):
        """P(j of them) for j up to k, over rows of chances ``[rows, N]``."""
        law = torch.zeros(len(chances), k + 1, dtype=torch.float64)
        law[:, 0] = 1
        for chance in chances.T[:, :, None]:
            law[:, 1:] = law[:, 1:] * (1 - chance) + law[:, :-1] * chance
            law[:, 0] *= 1 - chance[:, 0]
        return law

    others = p.expand(len(p), -1).masked_fill(torch.eye(len(p), dtype=torch.bool), 0)
    chance = p * size_law(others)[:, k - 1] / size_law(p[None])[0, k]
    return vectors.square() @ chance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 3])
def test_rejection_has_the_enumerated_law(backend, k, dtype):
    L = random_kernel(6, seed=1)
    masks, found = by_rejection(L.to(dtype).expand(20_000, 6, 6), k)
    assert found.all()
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(L, k)) > ACCEPTED
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(wrong_kernel(L), k)) < REJECTED


def test_one_draw_has_the_enumerated_law_of_the_dpp(backend):
    L = random_kernel(6, seed=2)
    noise = torch.rand(20_000, 6, dtype=torch.float64, generator=fold_in(3))
    masks, found = rejection.sample_any_size(L.expand(20_000, 6, 6), noise)
    assert found.all()
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(L)) > ACCEPTED
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(wrong_kernel(L))) < REJECTED


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_the_law_does_not_depend_on_the_scale(factor, monkeypatch):
    """Only the number of draws does: here the expected size is far from k on either side."""
    L = random_kernel(6, seed=4)

    def forced(L, size, dtype):
        scaled = scale_to_size(L, size, dtype)
        identity = torch.eye(6, dtype=torch.float64)
        gram = factor * (scaled.factor.mT @ scaled.factor - identity) + identity
        return scaled._replace(factor=torch.linalg.cholesky(gram).mT.contiguous())

    monkeypatch.setattr(rejection, "scale_to_size", forced)
    masks, found = by_rejection(L.expand(20_000, 6, 6), 3)
    assert found.all()
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(L, 3)) > ACCEPTED
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(wrong_kernel(L), 3)) < REJECTED


@METHODS
def test_inclusion_probabilities_of_a_photograph(photographs, method):
    N, k, draws = 196, 49, 400
    L = photographs[0]
    expected = inclusion_probabilities(L, k)
    assert float(expected.sum()) == pytest.approx(k, rel=1e-4)  # float32 eigenvalues below 0 are cut off
    noise = torch.rand(draws, N, generator=fold_in(5))
    share = kdpp_from_noise(L.expand(draws, N, N), k, noise, method=method).double().mean(0)

    def mean_square_deviation(law):
        return ((share - law).square() / (law * (1 - law) / draws)).mean()

    assert mean_square_deviation(expected) < 1.25
    assert mean_square_deviation(inclusion_probabilities(L.double() ** 4, k)) > 1.6  # half the bandwidth
    assert mean_square_deviation(torch.full((N,), k / N).double()) > 1.6


def test_both_methods_agree_in_law(photographs):
    """In how diverse a set is, by which samples of a k-DPP and uniform sets differ much."""
    L, k, draws = photographs[1].double(), 20, 400
    noise = torch.rand(draws, 196, generator=fold_in(6))

    def diversity(masks):
        items = masks.nonzero()[:, 1].reshape(draws, k)
        return torch.linalg.slogdet(L[items[:, :, None], items[:, None, :]]).logabsdet

    one, other = (
        diversity(kdpp_from_noise(L.float().expand(draws, 196, 196), k, noise, method=method))
        for method in ("spectral", "rejection")
    )
    assert stats.ks_2samp(one.numpy(), other.numpy()).pvalue > ACCEPTED
    uniform = diversity(noise.argsort(1).argsort(1) < k)
    assert stats.ks_2samp(one.numpy(), uniform.numpy()).pvalue < REJECTED


@METHODS
def test_permuting_the_items_permutes_the_law(method):
    L, order = random_kernel(6, seed=7), torch.tensor([4, 0, 5, 2, 1, 3])
    permuted = L[order][:, order]
    items = sample_kdpp(permuted.expand(20_000, 6, 6), 3, generator=fold_in(7), method=method)
    masks = torch.zeros(20_000, 6, dtype=torch.bool).scatter(1, order[items], True)
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(L, 3)) > ACCEPTED
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(permuted, 3)) < REJECTED


@pytest.mark.parametrize("k", [10, 49, 75])
def test_photographs_never_need_a_spectrum(photographs, k, monkeypatch):
    chosen, found = by_rejection(photographs, k)
    assert found.all()
    assert (chosen.sum(1) == k).all()
    monkeypatch.setattr(spectral, "decompose", lambda L: pytest.fail("eigendecomposition"))
    sample_kdpp(photographs, k, generator=fold_in(8), method="rejection")
    sample_dpp(photographs, generator=fold_in(8))


@METHODS
def test_equal_noise_gives_equal_samples_in_any_batch(photographs, method):
    L, noise = photographs[:6], torch.rand(6, 196, generator=fold_in(9))
    size = torch.tensor([49, 20, 0, 98, 1, 49])
    together = kdpp_from_noise(L, size, noise, method=method)
    assert torch.equal(together.sum(1), size)
    shaped = kdpp_from_noise(
        L.reshape(2, 3, 196, 196), size.reshape(2, 3), noise.reshape(2, 3, 196), method=method
    )
    assert torch.equal(shaped.reshape(6, 196), together)
    for row in range(6):
        assert torch.equal(kdpp_from_noise(L[row], int(size[row]), noise[row], method=method), together[row])
    assert not torch.equal(kdpp_from_noise(L, size, noise.roll(1, 0), method=method), together)


def test_rounds_change_no_sample(photographs, backend, monkeypatch):
    """Nor whether images that have their sample are left out of a round, as they are on a CPU."""
    L = photographs[:, ::4, ::4].contiguous()
    expected = by_rejection(L, 12)
    monkeypatch.setattr(rejection, "ROUNDS", {"cpu": (1, 2, 3, 5, 100)})
    for left_out in (True, False):
        if not left_out:
            monkeypatch.setattr(rejection, "rows_left", lambda left: slice(None))
        actual = by_rejection(L, 12)
        assert torch.equal(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])
    assert expected[1].all()


def test_backends_draw_the_same(photographs, use_backend):
    pytest.importorskip("numba")
    L = photographs[:, ::2, ::2].contiguous()
    compiled = by_rejection(L, 24)[0], sample_dpp(L, generator=fold_in(10))
    use_backend("torch")
    plain = by_rejection(L, 24)[0], sample_dpp(L, generator=fold_in(10))
    assert torch.equal(plain[0], compiled[0])
    assert torch.equal(plain[1], compiled[1])


def test_failed_draws_leave_the_law_alone(monkeypatch):
    """Rows without a sample go to the spectral sampler on numbers that say nothing about the failure."""
    L, draws = random_kernel(6, seed=11), 20_000
    noise = torch.rand(draws, 6, generator=fold_in(11))
    monkeypatch.setattr(rejection, "ROUNDS", {"cpu": (1,)})
    _, found = rejection.sample_sized(L.expand(draws, 6, 6), torch.full((draws,), 3), digest(noise))
    masks = kdpp_from_noise(L.expand(draws, 6, 6), 3, noise, method="rejection")
    assert 0.2 < found.double().mean() < 0.8
    for part in (masks, masks[found], masks[~found]):
        assert chi_square_p_value(counts_of_subsets(part), law_of_subsets(L, 3)) > ACCEPTED
        assert chi_square_p_value(counts_of_subsets(part), law_of_subsets(wrong_kernel(L), 3)) < REJECTED


@METHODS
def test_flat_images_beside_others(photographs, method):
    L = photographs[:3].clone()
    L[1] = 1.0
    noise = torch.rand(3, 196, generator=fold_in(12))
    sampled = kdpp_from_noise(L, 30, noise, method=method)
    assert sampled.sum(1).tolist() == [30, 1, 30]
    assert torch.equal(sampled[0], kdpp_from_noise(photographs[0], 30, noise[0], method=method))
    with pytest.raises(ValueError, match="got k=30 and a kernel of rank 1"):
        sample_kdpp(L, 30, method=method)


def test_what_auto_chooses(use_backend):
    L = patch_kernel(2, num_patches=30)
    noise = torch.rand(2, 30, generator=fold_in(13))

    def same(method, k):
        return torch.equal(kdpp_from_noise(L, k, noise), kdpp_from_noise(L, k, noise, method=method))

    if ops.HAS_NUMBA:
        assert same("rejection", 20)
        assert same("spectral", 21)
    use_backend("torch")
    assert same("spectral", 10)
    assert not same("rejection", 10)


def test_wrong_options_are_refused():
    L, noise = random_kernel(3, 4), torch.rand(3, 4)
    with pytest.raises(ValueError, match="method must be one of auto, spectral, rejection, got 'exact'"):
        sample_kdpp(L, 2, method="exact")
    with pytest.raises(TypeError, match="k must be int64"):
        kdpp_from_noise(L, torch.tensor([1.0, 2.0, 3.0]), noise)
    with pytest.raises(ValueError, match=r"k must have shape \[3\]"):
        kdpp_from_noise(L, torch.tensor([1, 2]), noise)
    with pytest.raises(ValueError, match=r"k must be in \[0, 4\]"):
        kdpp_from_noise(L, torch.tensor([1, 2, 5]), noise)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_with_one_wait(photographs):
    noise = torch.rand(12, 196, generator=fold_in(14))
    expected = kdpp_from_noise(photographs.double(), 49, noise, method="rejection")
    L, on_gpu = photographs.double().cuda(), noise.cuda()
    kdpp_from_noise(L, 49, on_gpu)  # libraries set themselves up
    actual, waits = counting_waits(lambda: kdpp_from_noise(L, 49, on_gpu))
    assert waits == 1
    assert torch.equal(actual.cpu(), expected)


def counting_waits(function):
    """What ``function`` returns, and how often it waited for the GPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            result = function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return result, sum("synchronizing" in str(warning.message) for warning in caught)
