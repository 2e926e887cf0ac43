import pytest
import torch
from kernel_cases import random_kernel
from torch.overrides import TorchFunctionMode

from dppmask.dpp import cosine_kernel, gaussian_kernel
from dppmask.dpp.backends import ops
from dppmask.dpp.kernels import _twice_gram
from dppmask.rng import fold_in


def features(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=fold_in(seed, *shape)).to(dtype)


def direct_kernel(x, *, bandwidth=1.0, normalize=True):
    """Differences of rows in float64, without a matrix product."""
    x = x.double()
    if normalize:
        x = x / x.norm(dim=-1, keepdim=True)
    return torch.exp(-(x[..., :, None, :] - x[..., None, :, :]).square().sum(-1) / (2 * bandwidth**2))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (2, 7, 4), (2, 3, 9, 33)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_gaussian_kernel_equals_direct_formula(shape, bandwidth, normalize, dtype, error):
    x = features(*shape, dtype=dtype)
    actual = gaussian_kernel(x, bandwidth=bandwidth, normalize=normalize)
    assert actual.dtype == dtype
    expected = direct_kernel(x, bandwidth=bandwidth, normalize=normalize)
    torch.testing.assert_close(actual.double(), expected, atol=error, rtol=error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_diagonal_is_exactly_one_and_kernel_exactly_symmetric(dtype):
    kernel = gaussian_kernel(features(3, 65, 130, dtype=dtype) + 5)
    assert (kernel.diagonal(dim1=-2, dim2=-1) == 1).all()
    assert torch.equal(kernel, kernel.mT)
    assert kernel.min() >= 0
    assert kernel.max() <= 1


def test_equal_rows_have_similarity_one():
    row = features(1, 48, dtype=torch.float32)
    kernel = gaussian_kernel(row.expand(20, -1))
    assert (1 - kernel).abs().max() <= torch.finfo(torch.float32).eps


@pytest.mark.parametrize("kernel_of", [gaussian_kernel, cosine_kernel])
def test_precision_settings_do_not_reach_the_kernel(kernel_of):
    x = features(4, 40, 96, dtype=torch.float32)
    expected = kernel_of(x)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = kernel_of(x)
    finally:
        torch.set_float32_matmul_precision(before)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel_of", [gaussian_kernel, cosine_kernel])
def test_half_precision_is_promoted(kernel_of, dtype):
    x = features(6, 12, dtype=dtype)
    assert torch.equal(kernel_of(x), kernel_of(x.float()))


class RoundToTF32(TorchFunctionMode):
    """Matrix products of operands rounded to TF32, accumulated exactly: what a tensor core does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.__matmul__, torch.Tensor.matmul, torch.matmul):
            with torch._C.DisableTorchFunctionSubclass():
                left, right = (self.rounded(x).double() for x in args)
                return (left @ right).float()
        return func(*args, **(kwargs or {}))

    @staticmethod
    def rounded(x):
        return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_split_products_survive_tf32_and_plain_ones_do_not():
    x = torch.nn.functional.normalize(features(3, 50, 384, dtype=torch.float32), dim=-1)
    exact = x.double() @ x.double().mT
    with RoundToTF32():
        split, plain = _twice_gram(x) / 2, x @ x.mT
    assert (plain - exact).abs().max() > 1e-5
    assert (split - exact).abs().max() < 1e-6
    assert torch.equal(split, split.mT)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_gpu_kernel_is_accurate_whatever_the_matmul_precision(precision):
    x = features(2, 196, 384, dtype=torch.float32)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            actual = gaussian_kernel(x.cuda()).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(actual.double(), direct_kernel(x), atol=2e-6, rtol=0)
    assert torch.equal(actual, actual.mT)
    assert (actual.diagonal(dim1=-2, dim2=-1) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e18, 1e37])
def test_normalised_kernels_ignore_the_scale_of_the_features(scale, dtype):
    x = features(7, 5, dtype=dtype)
    for kernel_of in (gaussian_kernel, cosine_kernel):
        torch.testing.assert_close(kernel_of(x * scale), kernel_of(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("bandwidth", [1e-300, 1e-30, 1e-6, 1e6, 1e30, 1e300, float("inf")])
@pytest.mark.parametrize("scale", [0.0, 1e-38, 1.0, 1e37])
def test_extreme_bandwidths_and_features_stay_finite(scale, bandwidth, normalize, dtype):
    kernel = gaussian_kernel(features(6, 4, dtype=dtype) * scale, bandwidth=bandwidth, normalize=normalize)
    assert kernel.isfinite().all()
    assert (kernel.diagonal() == 1).all()


def test_extreme_bandwidths_reach_their_limits():
    x = features(6, 4)
    torch.testing.assert_close(
        gaussian_kernel(x, bandwidth=1e-3), torch.eye(6, dtype=x.dtype), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(gaussian_kernel(x, bandwidth=1e9), torch.ones(6, 6, dtype=x.dtype))


def test_zero_row_is_at_distance_one_from_unit_rows():
    x = features(4, 3)
    x[2] = 0
    kernel = gaussian_kernel(x)
    assert kernel[2, 2] == 1
    torch.testing.assert_close(kernel[2, [0, 1, 3]], torch.full((3,), -0.5, dtype=x.dtype).exp())
    assert (cosine_kernel(x)[2] == 0).all()


def test_permuting_rows_permutes_the_kernel():
    x = features(8, 5)
    order = torch.randperm(8, generator=fold_in(0))
    torch.testing.assert_close(gaussian_kernel(x[order]), gaussian_kernel(x)[order][:, order])


def test_cosine_kernel_equals_scikit_learn():
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    x = features(9, 4)
    torch.testing.assert_close(cosine_kernel(x), torch.from_numpy(pairwise.cosine_similarity(x.numpy())))
    assert (cosine_kernel(x).diagonal() == 1).all()


def test_gaussian_kernel_equals_scikit_learn():
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    x = features(9, 4)
    expected = torch.from_numpy(pairwise.rbf_kernel(x.numpy(), gamma=1 / (2 * 1.7**2)))
    torch.testing.assert_close(gaussian_kernel(x, bandwidth=1.7, normalize=False), expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_gradient_is_right(normalize):
    x = features(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gaussian_kernel(x, normalize=normalize), x)


def test_gradient_of_split_products():
    x = features(5, 6, dtype=torch.float32).requires_grad_()
    weights = random_kernel(5, dtype=torch.float32)
    (actual,) = torch.autograd.grad((_twice_gram(x) / 2 * weights).sum(), x)
    torch.testing.assert_close(actual, 2 * weights @ x.detach(), atol=1e-2, rtol=1e-3)


def test_gradient_at_a_zero_row_is_finite():
    x = features(4, 3)
    x[1] = 0
    x.requires_grad_()
    gaussian_kernel(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan")])
def test_bandwidth_must_be_positive(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be > 0, got"):
        gaussian_kernel(features(3, 2), bandwidth=bandwidth)


@pytest.mark.parametrize("kernel_of", [gaussian_kernel, cosine_kernel])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_features_are_refused(kernel_of, bad):
    x = features(2, 3, 4)
    x[1, 2, 0] = bad
    with pytest.raises(ValueError, match="features must be finite, got 1 "):
        kernel_of(x)


@pytest.mark.parametrize("kernel_of", [gaussian_kernel, cosine_kernel])
def test_wrong_shapes_and_types_are_refused(kernel_of):
    with pytest.raises(ValueError, match=r"features must have shape \[..., N, D\]"):
        kernel_of(torch.ones(3))
    with pytest.raises(ValueError, match=r"features must have shape \[..., N, D\]"):
        kernel_of(torch.ones(3, 0))
    with pytest.raises(TypeError, match="features must be a floating-point tensor"):
        kernel_of(torch.ones(3, 2, dtype=torch.int64))


def test_triton_gets_one_batch_dimension_and_no_gradient(monkeypatch):
    features = torch.randn(2, 3, 5, 4, generator=fold_in(0))
    expected, seen = gaussian_kernel(features, bandwidth=0.7), []

    def gaussian(x, bandwidth, normalize):
        seen.append((x.shape, bandwidth, normalize))
        return expected.reshape(6, 5, 5)

    monkeypatch.setattr(ops, "backend", lambda x, num_items: "triton")
    monkeypatch.setattr(ops, "gaussian", gaussian)
    assert torch.equal(gaussian_kernel(features, bandwidth=0.7), expected)
    assert seen == [((6, 5, 4), 0.7, True)]
    assert gaussian_kernel(features.requires_grad_()).requires_grad  # by torch
    assert len(seen) == 1
