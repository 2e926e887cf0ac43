import pytest
import torch
from kernel_cases import degenerate_kernels, patch_kernel, random_kernel

from dppmask.dpp.scaling import scale_to_size, unscaled
from dppmask.rng import fold_in


def eigenvalues(factor):
    """Those of the marginal kernel of the DPP that the factor V with Vᵀ V = α L + I stands for."""
    scaled = torch.linalg.eigvalsh(factor.mT @ factor) - 1
    return scaled / (1 + scaled)


def sized(L, k, dtype=torch.float64):
    return scale_to_size(L, torch.full((len(L),), k), dtype)


@pytest.mark.parametrize("k", [1, 20, 49, 98, 147])
@pytest.mark.parametrize("num_patches", [64, 196])
def test_about_k_items_are_expected(num_patches, k):
    if k >= num_patches:
        pytest.skip("more items than there are")
    L = patch_kernel(6, num_patches=num_patches)
    factor, usable = sized(L, k)
    assert usable.all()
    assert torch.equal(factor, factor.triu())
    assert factor.is_contiguous()
    p = eigenvalues(factor)
    distance = (p.sum(1) - k).abs() / (p * (1 - p)).sum(1).sqrt()
    assert distance.max() < (0.41 if num_patches == 64 else 1.2)  # 0.4, and what the estimated traces add
    gram = factor.mT @ factor - torch.eye(num_patches, dtype=torch.float64)
    alpha = gram.diagonal(dim1=1, dim2=2)[:, :1, None] / L[:, :1, :1]
    torch.testing.assert_close(gram, alpha * L)


def test_few_steps_are_enough(monkeypatch):
    L = torch.cat([patch_kernel(8), patch_kernel(8) ** 8])  # the second half falls off much more slowly
    monkeypatch.setattr("dppmask.dpp.scaling.STEPS", 2)
    assert sized(L, 49).usable.all()


def test_an_image_gets_the_same_scale_in_every_batch():
    L = torch.cat([patch_kernel(3), patch_kernel(3) ** 8, 100 * patch_kernel(3)])
    size = torch.tensor([49, 20, 98] * 3)
    together = scale_to_size(L, size, torch.float64)
    for row in range(9):
        alone = scale_to_size(L[row : row + 1], size[row : row + 1], torch.float64)
        assert torch.equal(alone.factor[0], together.factor[row])
        assert bool(alone.usable) == bool(together.usable[row])


def test_where_looking_would_wait_the_result_is_the_same(monkeypatch):
    L = torch.cat([patch_kernel(2, num_patches=40), patch_kernel(2, num_patches=40) ** 8])
    expected = sized(L, 10)
    monkeypatch.setattr("dppmask.dpp.scaling.rows_left", lambda left: slice(None))
    actual = sized(L, 10)
    assert torch.equal(actual.factor, expected.factor)
    assert torch.equal(actual.usable, expected.usable)


def test_rounding_in_the_kernel_does_not_reach_the_scale():
    """The step of the grid of log α is far above it: samples on two devices agree."""
    L = patch_kernel(20, num_patches=64)
    noise = torch.randn(L.shape, dtype=torch.float64, generator=fold_in(0))
    other = sized(L * (1 + 1e-13 * (noise + noise.mT)), 16).factor
    torch.testing.assert_close(other, sized(L, 16).factor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("N", "rank"), [(12, 5), (64, 20), (196, 40)])
def test_too_low_a_rank_is_never_usable(N, rank, dtype):
    L = random_kernel(20, N, rank=rank).to(dtype)
    assert not sized(L.double(), rank + 1, dtype).usable.any()
    assert not sized(L.double(), rank + 4, dtype).usable.any()
    assert sized(L.double(), rank // 2, dtype).usable.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_kernels_are_left_to_others(dtype):
    for name, (L, rank) in degenerate_kernels(dtype).items():
        for k in range(len(L) + 1):
            usable = bool(sized(L[None].double(), k, dtype).usable)
            assert not usable or 0 < k <= rank, (name, k)
        assert not sized(L[None].double(), 0, dtype).usable.any()


def test_ill_conditioned_and_indefinite_kernels_are_left_to_others():
    steep = torch.diag(torch.logspace(0, -12, 20, dtype=torch.float64))[None]
    assert not sized(steep, 15).usable.any()
    assert sized(steep, 3).usable.all()
    indefinite = torch.eye(20, dtype=torch.float64)
    indefinite[0, 1] = indefinite[1, 0] = 1.01
    assert not sized(indefinite[None], 5).usable.any()
    assert not unscaled(indefinite[None], torch.float64).usable.any()


def test_unscaled():
    L = random_kernel(3, 7)
    factor, usable = unscaled(L, torch.float64)
    torch.testing.assert_close(factor.mT @ factor, L + torch.eye(7, dtype=torch.float64))
    assert usable.all()
    assert not unscaled(1e12 * L, torch.float64).usable.any()
