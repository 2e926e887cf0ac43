"""The operators as torch sees them: what they claim of shapes and aliasing holds, on every CPU backend."""

import pytest
import torch
from kernel_cases import patch_features, patch_kernel

from dppmask.dpp.backends import ops


@pytest.fixture(autouse=True, params=["torch", "numba"])
def _backend(request, use_backend):
    use_backend(request.param)


@pytest.mark.parametrize("first", [None, torch.tensor([3, 0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_keep_what_they_claim(dtype, first):
    L = patch_kernel(2, num_patches=9, dtype=dtype)
    points = patch_features(2, num_patches=9, dtype=dtype)
    tolerance, rate = torch.full((2,), 0.1, dtype=dtype), torch.full((2,), 0.5, dtype=dtype)
    torch.library.opcheck(ops.pivoted_cholesky, (L, 4, tolerance, first))
    torch.library.opcheck(ops.pivoted_cholesky_gaussian, (points, rate, 4, tolerance, first))


def test_any_memory_layout_gives_the_same():
    L = patch_kernel(3, num_patches=40, dtype=torch.float32)
    tolerance = torch.full((3,), 1e-4)
    expected = ops.pivoted_cholesky(L, 9, tolerance, None)
    actual = ops.pivoted_cholesky(L.mT, 9, tolerance, None)
    assert torch.equal(actual[0], expected[0])


def test_cuda_float32_goes_to_triton_up_to_its_size():
    x = torch.empty(0, device="meta")

    class OnCuda:
        device, dtype = torch.device("cuda"), torch.float32

    assert ops.backend(x, 196) == "torch"
    assert ops.backend(OnCuda(), 1024) == ("triton" if ops.HAS_TRITON else "torch")
    assert ops.backend(OnCuda(), 1025) == "torch"
