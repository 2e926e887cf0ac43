import pytest
import torch
from kernel_cases import patch_kernel, random_kernel

from dppmask.dpp import marginal_kernel, naive
from dppmask.rng import fold_in


def draw_all(K, uniforms):
    """Every draw as the textbook makes it: bool ``[B, R, N]``."""
    chosen = torch.zeros(uniforms.shape, dtype=torch.bool)
    for image, draws in enumerate(uniforms):
        for row, noise in enumerate(draws):
            chosen[image, row, naive.sequential_draw(K[image], noise)] = True
    return chosen


def check(sequential_draws, K, uniforms, size, active=None):
    """The result against the textbook's draws: which image has found its draw."""
    active = torch.ones(len(K), dtype=torch.bool) if active is None else active
    draws = draw_all(K, uniforms)
    fits = (draws.sum(2) == torch.as_tensor(size)[..., None]) & active[:, None]
    first = fits.int().argmax(1)
    chosen, found = sequential_draws(K, uniforms, size, active)
    assert torch.equal(found, fits.any(1))
    assert torch.equal(chosen, draws[torch.arange(len(K)), first] & found[:, None])
    return found


def case(batch, N, R, seed=0, dtype=torch.float64):
    """Marginal kernels of which about half the items are drawn, and uniform numbers."""
    K = marginal_kernel(random_kernel(batch, N, seed=seed)).float()
    return K, torch.rand(batch, R, N, dtype=dtype, generator=fold_in(seed, batch, N, R))


@pytest.mark.parametrize(("N", "R"), [(1, 4), (2, 6), (5, 6), (16, 3), (17, 3), (40, 2)])
def test_equals_naive_in_float64(interpreted, N, R):
    K, uniforms = case(2, N, R)
    sizes = draw_all(K, uniforms).sum(2)  # [B, R]
    for draw in (0, R - 1):
        assert check(interpreted.sequential_draws, K, uniforms, sizes[:, draw]).all()
    check(interpreted.sequential_draws, K, uniforms, N // 2)


def test_uniforms_in_float32(interpreted):
    K, uniforms = case(2, 5, 8, dtype=torch.float32)
    check(interpreted.sequential_draws, K, uniforms, 2)


def test_past_items_are_read_in_more_than_one_piece(interpreted):
    K = marginal_kernel(patch_kernel(1, num_patches=90)).float()
    uniforms = torch.rand(1, 2, 90, generator=fold_in(0))
    sizes = draw_all(K, uniforms).sum(2)[0]
    assert sizes[0] != sizes[1]
    assert check(interpreted.sequential_draws, K, uniforms, sizes[1:]).all()


def test_of_draws_that_fit_the_first_is_taken(interpreted):
    K, uniforms = case(3, 6, 40, seed=1)
    for size in (2, 3):
        assert (draw_all(K, uniforms).sum(2) == size).sum(1).min() > 1
        check(interpreted.sequential_draws, K, uniforms, size)


def test_nothing_fits(interpreted):
    K, uniforms = case(2, 8, 3)
    assert not check(interpreted.sequential_draws, K, uniforms, 9).any()
    assert not check(interpreted.sequential_draws, K, uniforms, -1).any()


def test_images_left_out(interpreted):
    K, uniforms = case(3, 8, 12)
    found = check(interpreted.sequential_draws, K, uniforms, 4, torch.tensor([True, False, True]))
    assert found.tolist() == [True, False, True]


def test_certain_and_impossible_items(interpreted):
    uniforms = torch.rand(2, 3, 20, generator=fold_in(2))
    uniforms[0, 0, 0] = 0
    for size, K in (
        (20, torch.eye(20)),
        (0, torch.zeros(20, 20)),
        (7, torch.diag(torch.arange(20) < 7).float()),
    ):
        assert check(interpreted.sequential_draws, K.repeat(2, 1, 1), uniforms, size).all()


def test_projection_kernels_draw_their_rank(interpreted):
    basis = torch.linalg.qr(torch.randn(2, 20, 6, dtype=torch.float64, generator=fold_in(3))).Q
    uniforms = torch.rand(2, 1, 20, generator=fold_in(4))
    assert check(interpreted.sequential_draws, (basis @ basis.mT).float(), uniforms, 6).all()


def test_nan_finds_nothing(interpreted):
    K, uniforms = case(2, 20, 3)
    K[0, 17, 17] = torch.nan
    for size in (0, 8, 17):
        _, found = interpreted.sequential_draws(K, uniforms, size, torch.ones(2, dtype=torch.bool))
        assert not found[0]


@pytest.mark.parametrize(("batch", "R"), [(0, 3), (2, 0)])
def test_nothing_to_do(interpreted, batch, R):
    active = torch.ones(batch, dtype=torch.bool)
    chosen, found = interpreted.sequential_draws(
        torch.eye(4).repeat(batch, 1, 1), torch.rand(batch, R, 4), 2, active
    )
    assert chosen.shape == (batch, 4)
    assert found.tolist() == [False] * batch
    assert not chosen.any()


def test_strided_input(interpreted):
    K, uniforms = case(1, 6, 9)
    check(
        interpreted.sequential_draws,
        K.expand(3, 6, 6),
        uniforms[:, ::3].expand(3, 3, 6),
        torch.tensor(3).expand(3),
        torch.tensor([True, True, False]),
    )


def image_case():
    """64 images' kernels scaled so that a draw has 49 items on average, and 40 draws of each."""
    kernels = patch_kernel(64)
    values = torch.linalg.eigvalsh(kernels).clamp(min=0)
    low, high = torch.full((64, 1), 1e-6), torch.full((64, 1), 1e6)
    for _ in range(60):
        scale = (low * high).sqrt()
        too_many = (scale * values / (1 + scale * values)).sum(1, keepdim=True) > 49
        low, high = torch.where(too_many, low, scale), torch.where(too_many, scale, high)
    uniforms = torch.rand(64, 40, 196, dtype=torch.float64, generator=fold_in(5))
    return marginal_kernel(scale[:, :, None] * kernels).float(), uniforms


@pytest.mark.gpu
def test_gpu_equals_naive():
    from dppmask.dpp.backends import triton_ops

    K, uniforms = image_case()
    chosen, found = triton_ops.sequential_draws(
        K.cuda(), uniforms.cuda(), 49, torch.ones(64, dtype=torch.bool).cuda()
    )
    draws = draw_all(K, uniforms)
    fits = draws.sum(2) == 49
    expected = draws[torch.arange(64), fits.int().argmax(1)] & fits.any(1)[:, None]
    assert found.sum() > 50
    # a number within rounding of its chance may decide otherwise than in float64: 64 · 12 · 196 · 1e-6 = 0.2
    assert (chosen.cpu() != expected).any(1).sum() <= 1


@pytest.mark.gpu
def test_gpu_repeats_itself_without_waiting_and_captures():
    from dppmask.dpp.backends import triton_ops

    K, uniforms = (x.cuda() for x in image_case())
    active = torch.arange(64).cuda() % 7 != 3
    size = torch.full((64,), 49).cuda()
    chosen, found = triton_ops.sequential_draws(K, uniforms, size, active)
    torch.cuda.set_sync_debug_mode("error")
    try:
        repeats = [triton_ops.sequential_draws(K, uniforms, size, active) for _ in range(5)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = triton_ops.sequential_draws(K, uniforms, size, active)
    graph.replay()
    for other in (*repeats, captured):
        assert torch.equal(other[0], chosen)
        assert torch.equal(other[1], found)
    assert not found[~active].any()
