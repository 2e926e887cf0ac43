"""Greedy picks straight from features are those from the kernel."""

import pytest
import torch
from kernel_cases import patch_features

from dppmask.dpp import gaussian_kernel, greedy, greedy_map, greedy_map_gaussian
from dppmask.rng import fold_in

PATHS = ["kernel", "rows of torch", "rows of numba"]


@pytest.fixture(autouse=True, params=PATHS)
def _path(request, use_backend, monkeypatch):
    """Every test on each of the three ways to the same picks."""
    use_backend("numba" if request.param == "rows of numba" else "torch")
    if request.param != "kernel":
        monkeypatch.setattr(greedy, "LARGEST_KERNEL", 0)


def assert_same(actual, expected, *, rtol=1e-9):
    assert torch.equal(actual.items, expected.items)
    assert torch.equal(actual.num_picked, expected.num_picked)
    torch.testing.assert_close(actual.gains, expected.gains, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("N", "D", "k"), [(1, 1, 1), (7, 3, 7), (37, 5, 10), (196, 48, 49)])
def test_equals_greedy_on_the_kernel(N, D, k, normalize, bandwidth):
    features = patch_features(3, num_patches=N, dim=D)
    L = gaussian_kernel(features, bandwidth=bandwidth, normalize=normalize)
    actual = greedy_map_gaussian(features, k, bandwidth=bandwidth, normalize=normalize, threshold=1e-4)
    assert_same(actual, greedy_map(L, k, threshold=1e-4))


@pytest.mark.parametrize("batch", [(), (0,), (2,), (2, 3)])
def test_any_batch_shape(batch):
    features = patch_features(*batch, num_patches=20, dim=6)
    first = torch.randint(20, batch, generator=fold_in(0))
    actual = greedy_map_gaussian(features, 8, threshold=0.1, first=first)
    assert actual.items.shape == (*batch, 8)
    assert_same(actual, greedy_map(gaussian_kernel(features), 8, threshold=0.1, first=first))


def test_a_threshold_for_each_kernel():
    features = patch_features(2, 3, num_patches=20, dim=6)
    thresholds = torch.linspace(0.0, 0.5, 6, dtype=features.dtype).reshape(2, 3)
    actual = greedy_map_gaussian(features, 8, threshold=thresholds)
    assert_same(actual, greedy_map(gaussian_kernel(features), 8, threshold=thresholds))
    assert len(actual.num_picked.unique()) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_finds_sets_as_good(dtype):
    features = patch_features(4).to(dtype)
    L = gaussian_kernel(features.double())
    found, best = greedy_map_gaussian(features, 49), greedy_map(L, 49)
    assert found.gains.dtype == torch.float32
    assert torch.equal(found.num_picked, best.num_picked)
    for kernel, items, expected in zip(L, found.items, best.items, strict=True):
        log_dets = [torch.logdet(kernel[chosen][:, chosen]) for chosen in (items, expected)]
        torch.testing.assert_close(*log_dets, atol=1e-2, rtol=0)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_magnitude_of_normalised_features_is_nothing(scale):
    features = patch_features(2, num_patches=30, dtype=torch.float32)
    assert_same(greedy_map_gaussian(features * scale, 12), greedy_map_gaussian(features, 12), rtol=1e-4)


def test_repeated_flat_and_zero_patches_end_early():
    repeated = patch_features(num_patches=10).repeat(20, 1)
    flat = torch.full_like(repeated, 0.3)
    zero = torch.zeros_like(repeated)
    one_zero = torch.cat([zero[:100], flat[:100]])
    selection = greedy_map_gaussian(torch.stack([repeated, flat, zero, one_zero]).float(), 49)
    assert selection.num_picked.tolist() == [10, 1, 1, 2]
    assert selection.gains.isfinite().all()


@pytest.mark.parametrize("bandwidth", [1e-30, 1e30])
def test_extreme_bandwidth_stays_finite(bandwidth):
    selection = greedy_map_gaussian(patch_features(2, num_patches=9).float(), 5, bandwidth=bandwidth)
    assert selection.num_picked.tolist() == ([5, 5] if bandwidth < 1 else [1, 1])
    assert selection.gains.isfinite().all()


def test_no_graph_is_kept_and_features_stay():
    features = patch_features(2, num_patches=9).requires_grad_()
    before = features.detach().clone()
    assert not greedy_map_gaussian(features, 4).gains.requires_grad
    assert torch.equal(features.detach(), before)


def test_autocast_changes_nothing(global_rng_untouched):
    features = patch_features(2, dtype=torch.float32)
    expected = greedy_map_gaussian(features, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(greedy_map_gaussian(features, 20), expected, rtol=0)


def test_compiles_without_a_graph_break():
    features = patch_features(2, num_patches=12, dtype=torch.float32)
    first = torch.tensor([3, 5])

    def pick(features, first):
        return greedy_map_gaussian(features, 5, threshold=0.1, first=first)

    compiled = torch.compile(pick, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(features, first), pick(features, first), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 5}, r"k must be in \[0, 4\] for 4 items, got 5"),
        ({"k": 1, "bandwidth": 0.0}, "bandwidth must be > 0, got 0.0"),
        ({"k": 1, "threshold": float("nan")}, "threshold must be a number"),
        ({"k": 1, "first": torch.tensor(4)}, r"first must be in \[0, 3\], got 4 to 4"),
    ],
)
def test_options_outside_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        greedy_map_gaussian(torch.eye(4), **options)


def test_features_must_be_finite_and_have_a_length():
    with pytest.raises(ValueError, match="features must be finite, got 1 NaN or infinite entries"):
        greedy_map_gaussian(torch.tensor([[1.0, torch.inf], [0.0, 1.0]]), 1)
    with pytest.raises(ValueError, match="features must have shape"):
        greedy_map_gaussian(torch.ones(3), 1)
