from itertools import pairwise

import numpy as np
import pytest
import torch

from dppmask.dpp import gaussian_kernel, naive
from dppmask.masks import DPPMask, MaskContext, RandomMask, Tokens
from dppmask.masks.features import patch_pixels
from dppmask.rng import fold_in


def context(batch: int = 6, num_patches: int = 14, dim: int = 5) -> MaskContext:
    generator = fold_in(0, batch, num_patches)
    return MaskContext.from_tokens(torch.randn(batch, num_patches, dim, generator=generator))


def draw(strategy, x: MaskContext, num_masked, *, seed: int = 0):
    return strategy(x, num_masked, generator=fold_in(1, seed))


def textbook(features: np.ndarray, noise: np.ndarray, num_keep: int, purge_ratio: float, bandwidth: float):
    """Visible patches of one image and the gain of each greedy pick, by determinants in float64."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance = ((unit[:, None] - unit[None]) ** 2).sum(-1)
    L = np.exp(-distance / (2 * bandwidth**2))

    def det(items):
        return np.linalg.det(L[np.ix_(items, items)])

    picks, gains = [], []
    while len(picks) < num_keep:
        rest = [i for i in range(len(noise)) if i not in picks]
        gain = {i: det([*picks, i]) / det(picks) for i in rest}
        best = max(rest, key=gain.get) if picks else int(noise.argmin())
        if gain[best] <= purge_ratio:
            break
        picks.append(best)
        gains.append(gain[best])
    fill = [i for i in noise.argsort() if i not in picks][: num_keep - len(picks)]
    return sorted(picks + fill), dict(zip(picks, gains, strict=True))


@pytest.mark.parametrize("purge_ratio", [0.0, 0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("bandwidth", [0.6, 1.0])
@pytest.mark.parametrize("num_masked", [4, 10, 13])
def test_follows_the_textbook(purge_ratio, bandwidth, num_masked):
    x = context()
    mask = draw(DPPMask(purge_ratio, bandwidth=bandwidth), x, num_masked)
    noise = torch.rand(6, 14, generator=fold_in(1, 0))
    for row in range(6):
        features = x.tokens[row].double().numpy()
        visible, gains = textbook(features, noise[row].numpy(), 14 - num_masked, purge_ratio, bandwidth)
        assert mask.ids_keep[row].tolist() == visible
        expected = torch.zeros(14)
        expected[list(gains)] = torch.tensor(list(gains.values()), dtype=torch.float32)
        torch.testing.assert_close(mask.scores[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("purge_ratio", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("first", ["noise", "argmax"])
def test_picks_are_those_of_the_textbook_from_either_first_patch(first, purge_ratio):
    x = context()
    mask = draw(DPPMask(purge_ratio, first=first), x, 6)
    noise = torch.rand(6, 14, generator=fold_in(1, 0))
    for L, scores, row_noise in zip(gaussian_kernel(x.tokens.double()), mask.scores, noise, strict=True):
        start = int(row_noise.argmin()) if first == "noise" else None
        items, gains = naive.greedy_map(L, 8, threshold=purge_ratio, first=start)
        expected = torch.zeros(14).index_put((torch.tensor(items, dtype=torch.int64),), torch.tensor(gains))
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
        assert items[:1] == ([] if purge_ratio == 1.0 else [start or 0])


def test_argmax_shows_the_first_patch_and_without_purge_one_mask_per_image():
    x = context(4, 30)
    greedy, purged = DPPMask(0.0, first="argmax"), DPPMask(0.9, first="argmax")
    masks = [[draw(strategy, x, 20, seed=seed) for seed in range(3)] for strategy in (greedy, purged)]
    assert not any(mask.masked[:, 0].any() for pair in masks for mask in pair)
    assert torch.equal(masks[0][0].masked, masks[0][1].masked)
    assert torch.equal(masks[0][0].masked, masks[0][2].masked)
    assert not torch.equal(masks[1][0].masked, masks[1][1].masked)
    assert [greedy.is_random, purged.is_random, DPPMask(0.0).is_random] == [False, True, True]


@pytest.mark.parametrize("num_masked", [1, 100, 147, 195, torch.tensor([0, 1, 100, 195])], ids=str)
def test_full_purge_is_the_random_mask_bit_for_bit(num_masked):
    x = context(4, 196)
    purged = draw(DPPMask(purge_ratio=1.0), x, num_masked)
    assert torch.equal(purged.masked, draw(RandomMask(), x, num_masked).masked)
    assert not purged.scores.any()


def test_the_least_noise_is_always_visible():
    x = context(32, 30)
    for purge_ratio in (0.0, 0.5, 1.0):
        masked = draw(DPPMask(purge_ratio), x, 29).masked
        assert torch.equal((~masked).nonzero()[:, 1], torch.rand(32, 30, generator=fold_in(1, 0)).argmin(1))


def test_rows_with_different_counts_equal_rows_drawn_alone():
    x, counts = context(5, 20), torch.tensor([19, 3, 0, 12, 12])
    ragged = draw(DPPMask(0.2), x, counts)
    for row, count in enumerate(counts.tolist()):
        alone = draw(DPPMask(0.2), x, count)
        assert torch.equal(ragged.masked[row], alone.masked[row])
        assert torch.equal(ragged.scores[row], alone.scores[row])


def test_more_purge_is_a_shorter_greedy_run():
    x = context(8, 40)
    picks = [draw(DPPMask(ratio), x, 20).scores > 0 for ratio in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    for longer, shorter in pairwise(picks):
        assert not (shorter & ~longer).any()
    assert picks[0].sum() == 8 * 20
    assert 0 < picks[3].sum() < picks[1].sum()


@pytest.mark.parametrize("different", [1, 3])
def test_repeated_patches_are_picked_once_and_the_noise_fills_up(different):
    patches = torch.randn(different, 8, generator=fold_in(2, different)).repeat(12 // different, 1)
    mask = draw(DPPMask(0.0), MaskContext.from_tokens(patches.expand(4, -1, -1)), 4)
    assert mask.masked.sum(1).tolist() == [4] * 4
    assert (mask.scores > 0).sum(1).tolist() == [different] * 4


@pytest.mark.parametrize("bandwidth", [1e-30, 1e-3, 1e3, 1e30])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_extreme_widths_and_scales(bandwidth, scale):
    x = context(3, 20)
    mask = draw(DPPMask(0.0, bandwidth=bandwidth), MaskContext.from_tokens(x.tokens * scale), 8)
    assert mask.masked.sum(1).tolist() == [8] * 3
    assert mask.scores.isfinite().all()


@pytest.mark.parametrize("grid", [(2, 3), (3, 2), (1, 6)])
def test_sources_agree_on_equal_features(grid):
    images = torch.randn(2, 3, 4 * grid[0], 5 * grid[1], generator=fold_in(3, *grid))
    pixels = patch_pixels(images, grid)
    teacher = Tokens(pixels[:, :1], pixels)
    by_pixels = draw(DPPMask(0.1, "pixels"), MaskContext(images, grid), 2)
    by_tokens = draw(DPPMask(0.1, "tokens"), MaskContext.from_tokens(pixels), 2)
    by_teacher = draw(DPPMask(0.1, "teacher"), MaskContext(grid=grid, teacher=teacher), 2)
    assert torch.equal(by_pixels.masked, by_tokens.masked)
    assert torch.equal(by_pixels.masked, by_teacher.masked)


def test_patches_of_pixels_are_row_major():
    images = torch.arange(4)[:, None, None].expand(4, 2, 3).reshape(2, 2, 2, 3)  # number of each patch
    images = images.permute(0, 2, 1, 3).reshape(1, 1, 4, 6).repeat(1, 3, 1, 1).float()
    expected = torch.arange(4.0)[None, :, None].expand(1, 4, 18)
    assert torch.equal(patch_pixels(images, (2, 2)), expected)


@pytest.mark.parametrize("strategy", [RandomMask(), DPPMask(0.2)], ids=repr)
@pytest.mark.parametrize("num_masked", [15, torch.tensor([0, 19, 15])], ids=str)
def test_compiles_to_one_graph(strategy, num_masked):
    x, noise = context(3, 20), torch.rand(3, 20, generator=fold_in(4, 0))
    features = strategy.features(x)
    compiled = torch.compile(strategy.choose, fullgraph=True, backend="eager")
    actual, expected = (choose(features, noise, num_masked) for choose in (compiled, strategy.choose))
    assert torch.equal(actual.masked, expected.masked)
    assert actual.num_masked == expected.num_masked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"purge_ratio": -0.1}, r"purge_ratio must be in \[0, 1\], got -0.1"),
        ({"purge_ratio": 1.1}, "purge_ratio must be in"),
        ({"purge_ratio": float("nan")}, "purge_ratio must be in"),
        ({"bandwidth": 0.0}, "bandwidth must be positive and finite, got 0.0"),
        ({"bandwidth": float("inf")}, "bandwidth must be positive"),
        ({"source": "pixel"}, "got 'pixel'; did you mean pixels"),
        ({"first": "arg_max"}, "first must say .* got 'arg_max'; did you mean argmax"),
        ({"source": None}, "source must say .* got None; choose from pixels, teacher, tokens"),
    ],
)
def test_wrong_options_are_refused_when_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        DPPMask(**arguments)


@pytest.mark.parametrize(
    ("source", "x", "message"),
    [
        ("tokens", MaskContext(torch.zeros(1, 3, 4, 4), (2, 2)), "DPPMask needs tokens, .* has images"),
        ("teacher", MaskContext.from_tokens(torch.zeros(1, 4, 2)), "needs teacher, .* has tokens"),
        ("pixels", MaskContext.from_tokens(torch.zeros(1, 4, 2)), "needs images"),
        ("pixels", MaskContext(torch.zeros(1, 3, 4, 4), tokens=torch.zeros(1, 4, 2)), "images and grid"),
        ("pixels", MaskContext(torch.zeros(1, 3, 5, 4), (2, 2)), "grid 2 × 2 for 5 × 4 pixels"),
        ("tokens", MaskContext(grid=(2, 3), tokens=torch.zeros(1, 4, 2)), r"\[1, 6, …\] for grid \(2, 3\)"),
    ],
)
def test_a_context_that_does_not_serve_is_refused(source, x, message):
    with pytest.raises(ValueError, match=message):
        draw(DPPMask(source=source), x, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value):
    x = context()
    x.tokens[2, 3, 1] = value
    with pytest.raises(ValueError, match="tokens must be finite"):
        draw(DPPMask(), x, 7)
