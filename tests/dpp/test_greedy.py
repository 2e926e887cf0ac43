import math

import numpy as np
import pytest
import torch
from kernel_cases import degenerate_kernels, degenerate_parameters, patch_kernel, random_kernel

from dppmask.dpp import gaussian_kernel, greedy_map, naive
from dppmask.rng import fold_in


@pytest.fixture(autouse=True, params=["torch", "numba"])
def _backend(request, use_backend):
    use_backend(request.param)


def sequential_greedy(L, k, threshold):
    """Chen et al. (2018) for one kernel in NumPy, item by item."""
    L = np.asarray(L)
    coordinates = np.zeros((len(L), 0))
    gain = L.diagonal().copy()
    items = []
    while len(items) < k:
        candidate = int(np.argmax(gain))
        if gain[candidate] <= threshold:
            break
        items.append(candidate)
        new = (L[candidate] - coordinates @ coordinates[candidate]) / math.sqrt(gain[candidate])
        coordinates = np.column_stack([coordinates, new])
        gain = gain - new**2
        gain[candidate] = -np.inf
    return items


def log_det(L, items):
    return torch.linalg.slogdet(L.double()[items][:, items]).logabsdet


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize(("N", "k"), [(1, 1), (3, 2), (6, 4), (7, 7)])
def test_equals_naive(N, k, threshold):
    for seed in range(4):
        L = random_kernel(N, seed=seed)
        items, gains = naive.greedy_map(L, k, threshold=threshold)
        actual = greedy_map(L, k, threshold=threshold)
        assert actual.num_picked == len(items)
        assert actual.items.tolist() == items + [-1] * (k - len(items))
        expected = torch.tensor(gains + [0.0] * (k - len(items)), dtype=L.dtype)
        torch.testing.assert_close(actual.gains, expected)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_equals_sequential_greedy_at_the_size_of_an_image(threshold):
    L = patch_kernel(3)
    selection = greedy_map(L, 49, threshold=threshold)
    for row, kernel in enumerate(L):
        expected = sequential_greedy(kernel, 49, threshold)
        assert selection.items[row, : selection.num_picked[row]].tolist() == expected


def test_float32_finds_sets_as_good_as_float64():
    L = patch_kernel(3)
    exact, single = greedy_map(L, 49), greedy_map(L.float(), 49)
    assert torch.equal(single.num_picked, exact.num_picked)
    for kernel, items, best in zip(L, single.items, exact.items, strict=True):
        torch.testing.assert_close(log_det(kernel, items), log_det(kernel, best), atol=1e-2, rtol=0)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (2, 1, 2)])
def test_any_batch_shape(batch):
    L = random_kernel(*batch, 6)
    selection = greedy_map(L, 4)
    assert selection.items.shape == (*batch, 4)
    assert selection.gains.shape == (*batch, 4)
    assert selection.num_picked.shape == batch
    for row, kernel in enumerate(L.reshape(-1, 6, 6)):
        assert selection.items.reshape(-1, 4)[row].tolist() == naive.greedy_map(kernel, 4)[0]


def test_batch_of_other_strides():
    L = random_kernel(3, 6)
    assert torch.equal(greedy_map(L[:1].expand(3, 6, 6), 4).items, greedy_map(L[:1], 4).items.expand(3, 4))
    padded = torch.full((3, 8, 8), torch.nan, dtype=L.dtype)
    padded[:, 1:7, 1:7] = L
    assert torch.equal(greedy_map(padded[:, 1:7, 1:7], 4).items, greedy_map(L, 4).items)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gains_never_increase_and_multiply_to_the_determinant(dtype):
    L = patch_kernel(2, num_patches=60, dtype=dtype)
    selection = greedy_map(L, 20)
    assert (selection.gains.diff(dim=1) <= 0).all()
    for kernel, items, gains in zip(L, selection.items, selection.gains, strict=True):
        torch.testing.assert_close(gains.double().log().sum(), log_det(kernel, items), atol=1e-3, rtol=0)


def test_fewer_picks_are_a_prefix():
    L = patch_kernel(4, num_patches=50)
    whole = greedy_map(L, 30)
    for k in (0, 1, 7, 29):
        assert torch.equal(greedy_map(L, k).items, whole.items[:, :k])
    purged = greedy_map(L, 30, threshold=0.6)
    kept = whole.gains > 0.6
    assert torch.equal(purged.items, whole.items.where(kept, -1))
    assert torch.equal(purged.gains, whole.gains.where(kept, 0))
    assert torch.equal(purged.num_picked, kept.sum(1))
    assert 0 < int(purged.num_picked.min()) < 30


def test_permuting_items_permutes_the_picks():
    L = random_kernel(9, seed=5)
    order = torch.randperm(9, generator=fold_in(1))
    permuted = greedy_map(L[order][:, order], 6)
    assert torch.equal(order[permuted.items], greedy_map(L, 6).items)


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e9, 1e30])
def test_scaling_the_kernel_scales_the_gains(factor):
    L = random_kernel(9, seed=6)
    expected, actual = greedy_map(L, 9), greedy_map(L * factor, 9)
    assert torch.equal(actual.items, expected.items)
    torch.testing.assert_close(actual.gains, expected.gains * factor, atol=0, rtol=1e-9)


def test_first_item_is_taken_as_given():
    L = patch_kernel(2, 3, num_patches=20)
    first = torch.tensor([[0, 5, 19], [7, 7, 2]])
    selection = greedy_map(L, 6, first=first)
    assert torch.equal(selection.items[..., 0], first)
    for kernel, items, start in zip(
        L.reshape(-1, 20, 20), selection.items.reshape(-1, 6), first.reshape(-1), strict=True
    ):
        assert items.tolist() == naive.greedy_map(kernel, 6, first=int(start))[0]


def test_first_item_of_a_single_kernel():
    L = random_kernel(6)
    assert greedy_map(L, 2, first=torch.tensor(4)).items[0] == 4


@pytest.mark.parametrize("first", [None, torch.tensor([2, 4])])
def test_stop_rule_covers_the_first_pick(first):
    L = gaussian_kernel(torch.randn(2, 5, 3, generator=fold_in(0)))
    selection = greedy_map(L, 4, threshold=1.0, first=first)
    assert (selection.items == -1).all()
    assert (selection.gains == 0).all()
    assert (selection.num_picked == 0).all()


def test_first_item_without_gain_picks_nothing():
    L = torch.diag(torch.tensor([1.0, 0.0, 2.0]))
    assert greedy_map(L, 3, first=torch.tensor(1)).num_picked == 0
    assert greedy_map(L, 3, first=torch.tensor(0)).items.tolist() == [0, 2, -1]


def test_rows_stop_on_their_own():
    L = torch.stack([torch.ones(4, 4), torch.eye(4), torch.zeros(4, 4)])
    selection = greedy_map(L, 3)
    assert selection.num_picked.tolist() == [1, 3, 0]
    assert selection.items.tolist() == [[0, -1, -1], [0, 1, 2], [-1, -1, -1]]


def test_ties_go_to_the_lowest_index():
    assert greedy_map(torch.eye(33), 33).items.tolist() == list(range(33))


@pytest.mark.parametrize(("dtype", "name"), degenerate_parameters())
def test_degenerate_kernels(dtype, name):
    L, rank = degenerate_kernels(dtype)[name]
    N = len(L)
    selection = greedy_map(L, N)
    picks = selection.items[: selection.num_picked].tolist()
    assert len(set(picks)) == len(picks)
    assert (selection.items[selection.num_picked :] == -1).all()
    assert (selection.gains[selection.num_picked :] == 0).all()
    assert selection.gains.isfinite().all()
    if (
        name != "badly_scaled"
    ):  # there the rule, relative to the largest diagonal entry, stops before the rank
        assert selection.num_picked == rank


def test_flat_image_gives_one_pick():
    kernel = gaussian_kernel(torch.full((2, 196, 48), 0.3))
    assert greedy_map(kernel, 49).num_picked.tolist() == [1, 1]


def test_repeated_patches_are_never_picked_twice():
    patches = torch.randn(10, 48, generator=fold_in(3))
    selection = greedy_map(gaussian_kernel(patches.repeat(20, 1)), 49)
    assert selection.num_picked == 10
    assert len(set((selection.items[:10] % 10).tolist())) == 10


def test_half_precision_is_promoted():
    L = random_kernel(6, dtype=torch.float16)
    assert greedy_map(L, 3).gains.dtype == torch.float32
    assert torch.equal(greedy_map(L, 3).items, greedy_map(L.float(), 3).items)


def test_autocast_changes_nothing(global_rng_untouched):
    L = patch_kernel(2, dtype=torch.float32)
    expected = greedy_map(L, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = greedy_map(L, 20)
    assert torch.equal(actual.items, expected.items)
    assert torch.equal(actual.gains, expected.gains)


def test_kernel_is_left_as_it_was_and_no_graph_is_kept():
    L = random_kernel(2, 6).requires_grad_()
    before = L.detach().clone()
    assert not greedy_map(L, 3).gains.requires_grad
    assert torch.equal(L.detach(), before)


def test_compiles_without_a_graph_break():
    L = patch_kernel(2, num_patches=12, dtype=torch.float32)
    first = torch.tensor([3, 5])

    def pick(L, first):
        return greedy_map(gaussian_kernel(L), 5, threshold=0.1, first=first)

    compiled = torch.compile(pick, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(L, first), pick(L, first), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.gpu
def test_gpu_picks_without_waiting_and_captures():
    L = patch_kernel(4, num_patches=50)
    expected = greedy_map(L, 20, threshold=0.05)
    static = L.cuda()
    greedy_map(static, 20, threshold=0.05)
    torch.cuda.set_sync_debug_mode("error")
    try:
        greedy_map(static, 20, threshold=0.05)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = greedy_map(static, 20, threshold=0.05)
    graph.replay()
    assert torch.equal(captured.items.cpu(), expected.items)


@pytest.mark.parametrize("batch", [(), (4,), (2, 2)])
def test_a_threshold_for_each_kernel(batch):
    L = random_kernel(*batch, 6)
    thresholds = torch.linspace(0.0, 0.8, 4, dtype=torch.float64)[: math.prod(batch)].reshape(batch)
    selection = greedy_map(L, 5, threshold=thresholds)
    alone = zip(
        L.reshape(-1, 6, 6), thresholds.flatten().tolist(), selection.items.reshape(-1, 5), strict=True
    )
    for kernel, threshold, items in alone:
        assert [i for i in items.tolist() if i >= 0] == naive.greedy_map(kernel, 5, threshold=threshold)[0]
    shared = greedy_map(L, 5, threshold=torch.tensor(0.3))
    assert torch.equal(shared.items, greedy_map(L, 5, threshold=0.3).items)


def test_thresholds_that_do_not_fit():
    with pytest.raises(ValueError, match=r"threshold must be a number or have shape \[2\], got \[3\]"):
        greedy_map(torch.eye(3).expand(2, -1, -1), 1, threshold=torch.zeros(3))
    with pytest.raises(ValueError, match="threshold must be a number, got nan"):
        greedy_map(torch.eye(3), 1, threshold=torch.tensor(float("nan")))


@pytest.mark.parametrize("k", [-1, 5])
def test_k_outside_range(k):
    with pytest.raises(ValueError, match=rf"k must be in \[0, 4\] for 4 items, got {k}"):
        greedy_map(torch.eye(4), k)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 4, 3), (0, 0)])
def test_kernel_must_be_square(shape):
    with pytest.raises(ValueError, match=r"L must have shape \[..., N, N\]"):
        greedy_map(torch.ones(shape), 1)


def test_kernel_must_be_finite_and_floating():
    with pytest.raises(ValueError, match="L must be finite, got 1 NaN or infinite entries"):
        greedy_map(torch.diag(torch.tensor([1.0, torch.nan])), 1)
    reached = torch.eye(3)
    reached[0, 2] = reached[2, 0] = torch.nan
    with pytest.raises(ValueError, match="L must be finite"):
        greedy_map(reached, 2)
    with pytest.raises(TypeError, match="L must be a floating-point tensor"):
        greedy_map(torch.ones(2, 2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="threshold must be a number"):
        greedy_map(torch.eye(2), 1, threshold=float("nan"))


def test_large_finite_entries_are_not_mistaken_for_infinite():
    assert greedy_map(3e38 * torch.eye(3), 3).num_picked == 3


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (torch.tensor([0]), r"first must be int64 of shape \[2\]"),
        (torch.tensor([0.0, 1.0]), r"first must be int64 of shape \[2\]"),
        (torch.tensor([0, 4]), r"first must be in \[0, 3\], got 0 to 4"),
        (torch.tensor([-1, 2]), r"first must be in \[0, 3\], got -1 to 2"),
    ],
)
def test_first_must_fit(first, message):
    with pytest.raises(ValueError, match=message):
        greedy_map(random_kernel(2, 4), 2, first=first)
