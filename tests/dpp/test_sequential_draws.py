"""Both backends of the sequential draws: the torch one takes marginal kernels, the compiled one factors."""

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

from dppmask.dpp import marginal_kernel, naive
from dppmask.dpp.backends import torch_sampling
from dppmask.rng import fold_in

ACCEPTED, REJECTED = 1e-3, 1e-9


def marginals(L):
    return marginal_kernel(L), torch_sampling


def factors(L):
    """V with Vᵀ V = L + I, items reversed, and the backend that draws from it."""
    pytest.importorskip("numba")
    from dppmask.dpp.backends import numba_sampling

    identity = torch.eye(L.shape[-1], dtype=torch.float64)
    return torch.linalg.cholesky(L.flip((-2, -1)) + identity).mT.contiguous(), numba_sampling


BACKENDS = pytest.mark.parametrize("prepare", [marginals, factors], ids=["torch", "numba"])


def as_mask(items, N):
    mask = torch.zeros(N, dtype=torch.bool)
    mask[items] = True
    return mask


@BACKENDS
@pytest.mark.parametrize("N", [1, 2, 15, 16, 17, 53])
def test_any_size_equals_the_plain_loop(prepare, N):
    L = 2 * random_kernel(4, N)
    K = marginal_kernel(L)
    kernel, backend = prepare(L)
    noise = torch.rand(4, N, dtype=torch.float64, generator=fold_in(0, N))
    expected = [as_mask(naive.sequential_draw(K[b], noise[b]), N) for b in range(4)]
    before = kernel.clone()
    assert torch.equal(backend.sequential_sample(kernel, noise), torch.stack(expected))
    assert torch.equal(kernel, before)


@BACKENDS
def test_the_first_draw_of_the_right_size_is_taken(prepare):
    B, R, N = 5, 40, 30
    L = patch_kernel(B, num_patches=N, seed=1)
    K = marginal_kernel(L)
    kernel, backend = prepare(L)
    numbers = torch.rand(B, R, N, dtype=torch.float64, generator=fold_in(1))
    size = torch.tensor([3, 5, 4, 25, 4])
    active = torch.tensor([True, True, True, True, False])
    chosen, found = backend.sequential_draws(kernel, numbers, size, active)
    tries = []
    for b in range(B):
        draws = [naive.sequential_draw(K[b], row) for row in numbers[b]]
        right = [r for r, draw in enumerate(draws) if len(draw) == size[b]] if active[b] else []
        tries += right[:1]
        assert bool(found[b]) == bool(right)
        assert chosen[b].nonzero()[:, 0].tolist() == (draws[right[0]] if right else [])
    assert found.tolist() == [True, True, True, False, False]
    assert max(tries) > 0  # not always the first draw


def test_one_size_for_all_and_small_groups_of_draws(monkeypatch):
    K = marginal_kernel(patch_kernel(3, num_patches=20))
    numbers = torch.rand(3, 50, 20, dtype=torch.float64, generator=fold_in(2))
    active = torch.ones(3, dtype=torch.bool)
    expected = torch_sampling.sequential_draws(K, numbers, torch.full((3,), 4), active)
    monkeypatch.setitem(torch_sampling.GROUP_NUMBERS, "cpu", 7 * K.numel())
    actual = torch_sampling.sequential_draws(K, numbers, 4, active)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])
    assert expected[1].all()


@BACKENDS
@pytest.mark.parametrize("k", [None, 1, 2, 3])
def test_draws_have_the_enumerated_law(prepare, k):
    N, draws = 5, 20_000
    L = random_kernel(N, seed=2)
    kernel, backend = prepare(L)
    kernels = kernel.expand(draws, N, N)
    if k is None:
        numbers = torch.rand(draws, N, dtype=torch.float64, generator=fold_in(3))
        masks = backend.sequential_sample(kernels, numbers)
    else:
        numbers = torch.rand(draws, 30, N, dtype=torch.float64, generator=fold_in(3, k))
        every = torch.ones(draws, dtype=torch.bool)
        masks, found = backend.sequential_draws(kernels, numbers, torch.full((draws,), k), every)
        masks = masks[found]
    assert len(masks) > draws / 20
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(L, k)) > ACCEPTED
    assert chi_square_p_value(counts_of_subsets(masks), law_of_subsets(wrong_kernel(L), k)) < REJECTED


@BACKENDS
def test_none_and_all_of_the_items(prepare):
    kernel, backend = prepare(random_kernel(2, 3))
    numbers = torch.rand(2, 2000, 3, dtype=torch.float64, generator=fold_in(4))
    chosen, found = backend.sequential_draws(
        kernel, numbers, torch.tensor([0, 3]), torch.ones(2, dtype=torch.bool)
    )
    assert found.all()
    assert chosen.tolist() == [[False] * 3, [True] * 3]


@BACKENDS
@pytest.mark.parametrize("value", [0.0, 1 - 2**-53])
def test_numbers_at_the_ends_of_their_range(prepare, value):
    kernel, backend = prepare(random_kernel(2, 6))
    noise = torch.full((2, 6), value, dtype=torch.float64)
    assert (backend.sequential_sample(kernel, noise) == (value == 0)).all()


@BACKENDS
def test_no_images(prepare):
    kernel, backend = prepare(random_kernel(0, 6))
    none = torch.zeros(0, dtype=torch.bool)
    chosen, found = backend.sequential_draws(
        kernel, torch.rand(0, 3, 6).double(), torch.zeros(0).long(), none
    )
    assert chosen.shape == (0, 6)
    assert found.shape == (0,)
    assert backend.sequential_sample(kernel, torch.rand(0, 6).double()).shape == (0, 6)
