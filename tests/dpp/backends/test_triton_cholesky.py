import pytest
import torch
from kernel_cases import degenerate_kernels, patch_kernel, random_kernel

from dppmask.dpp import naive
from dppmask.dpp.backends import torch_ops


def tolerance_of(L, threshold=0.0):
    """As in ``greedy_map``."""
    noise = L.shape[-1] * torch.finfo(L.dtype).eps * L.diagonal(dim1=1, dim2=2).amax(1)
    return noise.clamp(min=threshold)


def picks(items, gains, tolerance):
    """Items and gains up to the first gain at or below the tolerance; -1 and 0 from there on."""
    picked = (gains > tolerance[:, None]).long().cumprod(1).bool()
    return items.where(picked, -1), gains.where(picked, 0)


def check_parity(pivoted_cholesky, L, k, threshold=0.0, first=None):
    tolerance = tolerance_of(L, threshold)
    items, gains = picks(*pivoted_cholesky(L, k, tolerance, first), tolerance)
    expected = picks(*torch_ops.pivoted_cholesky(L, k, tolerance, first), tolerance)
    assert items.dtype == torch.int64
    assert torch.equal(items, expected[0])
    torch.testing.assert_close(gains, expected[1], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize(("N", "k"), [(1, 1), (3, 2), (6, 4), (7, 7)])
def test_equals_naive_in_float64(interpreted, N, k, threshold):
    L = random_kernel(2, N, seed=N, dtype=torch.float32)
    tolerance = tolerance_of(L, threshold)
    for first in (None, torch.tensor([N - 1, N // 2])):
        items, gains = picks(*interpreted.pivoted_cholesky(L, k, tolerance, first), tolerance)
        for row in range(2):
            start = None if first is None else int(first[row])
            expected, values = naive.greedy_map(L[row].double(), k, threshold=threshold, first=start)
            assert items[row].tolist() == expected + [-1] * (k - len(expected))
            actual = gains[row, : len(values)].double()
            torch.testing.assert_close(actual, torch.tensor(values).double(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("N", "k"), [(33, 33), (49, 12), (64, 9)])
def test_equals_torch_on_patches(interpreted, N, k):
    L = patch_kernel(2, num_patches=N, dtype=torch.float32)
    check_parity(interpreted.pivoted_cholesky, L, k)
    check_parity(interpreted.pivoted_cholesky, L, k, threshold=0.3, first=torch.tensor([N - 1, 3]))


def test_equals_torch_on_a_kernel_that_is_low_rank_plus_noise(interpreted):
    L = random_kernel(2, 40, rank=5, dtype=torch.float32) + 1e-3 * torch.eye(40)
    check_parity(interpreted.pivoted_cholesky, L, 12)


def test_rows_stop_on_their_own_and_leave_nothing_undefined(interpreted):
    L = torch.stack([torch.ones(4, 4), torch.eye(4), torch.zeros(4, 4)])
    items, gains = interpreted.pivoted_cholesky(L, 4, torch.full((3,), 1e-6), None)
    assert gains.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert items.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 0]]


@pytest.mark.parametrize("name", degenerate_kernels(torch.float32))
def test_degenerate_kernels(interpreted, name):
    L = degenerate_kernels(torch.float32)[name][0][None]
    tolerance = tolerance_of(L)
    items, gains = picks(*interpreted.pivoted_cholesky(L, L.shape[1], tolerance, None), tolerance)
    expected, _ = naive.greedy_map(L[0], L.shape[1])
    assert items[0, : len(expected)].tolist() == expected
    assert (items[0, len(expected) :] == -1).all()
    assert gains.isfinite().all()


def test_ties_go_to_the_lowest_index(interpreted):
    items, _ = interpreted.pivoted_cholesky(torch.eye(33)[None], 33, torch.zeros(1), None)
    assert items[0].tolist() == list(range(33))


def test_nan_ends_a_row_and_shows(interpreted):
    L = torch.eye(5).repeat(3, 1, 1)
    L[0, 0, 3] = L[0, 3, 0] = torch.nan
    L[1, 4, 4] = torch.nan
    tolerance = torch.full((3,), 1e-6)
    items, gains = interpreted.pivoted_cholesky(L, 4, tolerance, None)
    assert gains.nan_to_num(nan=-1).tolist() == [[1, -1, 0, 0], [-1, 0, 0, 0], [1, 1, 1, 1]]
    assert picks(items, gains, tolerance)[0].tolist() == [[0, -1, -1, -1], [-1] * 4, [0, 1, 2, 3]]


@pytest.mark.parametrize("first", [-1, 3, 40, 10**12])
def test_first_item_that_does_not_exist_picks_nothing(interpreted, first):
    _, gains = interpreted.pivoted_cholesky(torch.eye(3)[None], 2, torch.zeros(1), torch.tensor([first]))
    assert (gains <= 0).all()


@pytest.mark.parametrize(("batch", "k"), [(0, 2), (2, 0)])
def test_nothing_to_do(interpreted, batch, k):
    items, gains = interpreted.pivoted_cholesky(torch.ones(batch, 3, 3), k, torch.zeros(batch), None)
    assert items.shape == gains.shape == (batch, k)


def test_batch_of_other_strides(interpreted):
    L = torch.full((2, 9, 9), torch.nan)
    L[:, 1:8, 1:8] = random_kernel(2, 7, dtype=torch.float32)
    check_parity(interpreted.pivoted_cholesky, L[:, 1:8, 1:8], 5)
    check_parity(interpreted.pivoted_cholesky, L[:1, 1:8, 1:8].expand(3, 7, 7), 5)


@pytest.mark.gpu
@pytest.mark.parametrize(("N", "k"), [(1, 1), (49, 12), (196, 49), (197, 197), (1024, 100)])
def test_gpu_equals_torch(N, k):
    from dppmask.dpp.backends import triton_ops

    L = patch_kernel(4, num_patches=N, dtype=torch.float32).cuda()
    for first in (None, torch.tensor([0, N - 1, N // 2, 0]).cuda()):
        tolerance = tolerance_of(L, 1e-3)
        _, gains = picks(*triton_ops.pivoted_cholesky(L, k, tolerance, first), tolerance)
        _, expected = picks(*torch_ops.pivoted_cholesky(L.double(), k, tolerance.double(), first), tolerance)
        assert torch.equal((gains > 0).sum(1), (expected > 0).sum(1))
        torch.testing.assert_close(gains.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_gpu_repeats_itself_without_waiting_and_captures():
    from dppmask.dpp.backends import triton_ops

    L = patch_kernel(64, dtype=torch.float32).cuda()
    tolerance = tolerance_of(L)
    items, gains = triton_ops.pivoted_cholesky(L, 49, tolerance, None)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = triton_ops.pivoted_cholesky(L, 49, tolerance, None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = triton_ops.pivoted_cholesky(L, 49, tolerance, None)
    graph.replay()
    for other in (again, captured):
        assert torch.equal(other[0], items)
        assert torch.equal(other[1], gains)
