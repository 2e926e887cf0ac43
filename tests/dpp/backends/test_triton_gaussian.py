import pytest
import torch

from dppmask.dpp import gaussian_kernel
from dppmask.rng import fold_in


def features(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=fold_in(0, *shape)).to(dtype)


def smooth_patches(batch=2, side=48, patch=6):
    """Patches ``[B, 64, 108]`` of images made of a few plane waves, with a flat corner."""
    generator = fold_in(1, batch, side, patch)
    place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1) / side
    waves = 12 * torch.rand(batch, 3, 4, 2, generator=generator)
    image = torch.einsum("bcwd,ijd->bcwij", waves, place).sin().sum(2)  # [B, 3, side, side]
    image[:, :, : side // 3, : side // 3] = 0.5
    return torch.nn.functional.unfold(image, patch, stride=patch).mT


def check(gaussian, x, bandwidth=1.0, normalize=True, atol=5e-7):
    L = gaussian(x, bandwidth, normalize)
    expected = gaussian_kernel(x.cpu().double(), bandwidth=bandwidth, normalize=normalize)
    assert L.dtype == torch.float32
    torch.testing.assert_close(L.cpu().double(), expected, atol=atol, rtol=0)
    assert torch.equal(L, L.mT)
    assert (L.diagonal(dim1=1, dim2=2) == 1).all()
    assert L.min() >= 0
    assert L.max() <= 1


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 5, 3), (2, 65, 33), (1, 130, 100), (1, 300, 24)])
def test_equals_float64(interpreted, shape, dtype, normalize):
    x = features(*shape, dtype=dtype)
    check(interpreted.gaussian, x, 1.0 if normalize else 5.0, normalize)


def test_equals_float64_on_smooth_patches(interpreted):
    x = smooth_patches()
    check(interpreted.gaussian, x)
    check(interpreted.gaussian, x, 0.5, atol=4 * 5e-7)  # an error of d² counts 1 / σ² times


def test_long_rows_lose_no_more_than_float32_does(interpreted):
    x = smooth_patches()  # squared lengths of 600, whose differences count
    exact = gaussian_kernel(x.double(), bandwidth=6.0, normalize=False)
    inner = x @ x.mT
    square = inner.diagonal(dim1=1, dim2=2)
    plain = torch.exp((2 * inner - square[:, :, None] - square[:, None]) / 72)
    actual = interpreted.gaussian(x, 6.0, False)
    assert (actual - exact).abs().max() < 2 * (plain - exact).abs().max()


def test_one_float16_product_would_not_do(interpreted):
    x = torch.nn.functional.normalize(features(1, 50, 256), dim=-1)
    exact = gaussian_kernel(x.double())
    rough = torch.exp(x.half().double() @ x.half().double().mT - 1)  # rows of unit length
    assert (rough - exact).abs().max() > 1e-5
    assert (interpreted.gaussian(x, 1.0, True) - exact).abs().max() < 5e-7


@pytest.mark.parametrize("normalize", [True, False])
def test_equal_rows_are_at_no_distance(interpreted, normalize):
    x = features(1, 140, 40)  # within a tile and across tiles
    x[0, [3, 70, 139]] = x[0, 2].clone()
    L = interpreted.gaussian(x, 0.7, normalize)[0]
    same = [2, 3, 70, 139]
    assert (L[same][:, same] == 1).all()


def test_zero_rows_are_at_distance_one_from_unit_rows(interpreted):
    x = features(1, 5, 7)
    x[0, [1, 3]] = 0
    L = interpreted.gaussian(x, 1.0, True)[0]
    assert L[1, 3] == 1
    torch.testing.assert_close(L[1, [0, 2, 4]], torch.full((3,), -0.5).exp())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-20, 1e18, 1e37])
def test_extreme_features_and_bandwidths(interpreted, scale, normalize):
    x = features(1, 6, 4) * scale
    for bandwidth in (1e-300, 1e-30, 1e-6, 1.0, 1e6, 1e30, 1e300, float("inf")):
        check(interpreted.gaussian, x, bandwidth, normalize, atol=2e-6)


def test_rows_of_very_different_length(interpreted):
    x = features(1, 6, 9) * torch.tensor([1e-6, 1e-3, 1, 1, 1e3, 1e6])[:, None]
    check(interpreted.gaussian, x)
    for bandwidth in (1e-6, 1e-3, 1.0, 1e3, 1e6):
        check(interpreted.gaussian, x, bandwidth, normalize=False)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_shows(interpreted, value):
    x = features(2, 70, 5)
    x[0, 3, 2] = value
    L = interpreted.gaussian(x, 1.0, True)
    assert L[0, 3].isnan().all()
    assert L[:, :, 3].isnan().tolist() == [[True] * 70, [False] * 70]
    assert interpreted.gaussian(x, 1.0, False).isnan().all((1, 2)).tolist() == [True, False]


def test_features_of_other_strides(interpreted):
    tokens = features(2, 8, 11)
    expected = interpreted.gaussian(tokens[:, 1:].contiguous(), 1.0, True)
    assert torch.equal(interpreted.gaussian(tokens[:, 1:], 1.0, True), expected)
    assert torch.equal(interpreted.gaussian(tokens[:, 1:].mT.contiguous().mT, 1.0, True), expected)


def test_empty_batch(interpreted):
    assert interpreted.gaussian(torch.empty(0, 5, 3), 1.0, True).shape == (0, 5, 5)


@pytest.mark.gpu
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 49, 588), (4, 196, 768), (2, 197, 384), (2, 1024, 768)])
def test_gpu_equals_float64(shape, dtype, normalize):
    from dppmask.dpp.backends import triton_ops

    x = features(*shape, dtype=dtype).cuda()
    check(triton_ops.gaussian, x, 1.0 if normalize else shape[2] ** 0.5, normalize, atol=2e-6)


@pytest.mark.gpu
def test_gpu_equal_rows_are_at_no_distance():
    from dppmask.dpp.backends import triton_ops

    L = triton_ops.gaussian(features(2, 49, 768).repeat(1, 4, 1).cuda(), 1.0, True)
    assert (L.reshape(2, 4, 49, 4, 49).diagonal(dim1=2, dim2=4) == 1).all()


@pytest.mark.gpu
def test_gpu_repeats_itself_without_waiting_and_captures():
    from dppmask.dpp.backends import triton_ops

    x = features(16, 196, 768).cuda()
    expected = triton_ops.gaussian(x, 1.0, True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = triton_ops.gaussian(x, 1.0, True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = triton_ops.gaussian(x, 1.0, True)
    graph.replay()
    assert torch.equal(again, expected)
    assert torch.equal(captured, expected)
