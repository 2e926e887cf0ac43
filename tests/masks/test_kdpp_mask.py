import logging
import warnings
from itertools import combinations

import pytest
import torch
from scipy.stats import chi2

from dppmask.dpp import gaussian_kernel
from dppmask.masks import KDPPMask, MaskContext
from dppmask.rng import fold_in
from pasted_objects import pasted_objects


def draw(strategy, tokens: torch.Tensor, num_masked, *, seed: int = 0):
    return strategy(MaskContext.from_tokens(tokens), num_masked, generator=fold_in(1, seed))


def fits(masked: torch.Tensor, law: torch.Tensor) -> float:
    """The p-value of the visible sets of ``masked [B, N]`` under a law over ``combinations(range(N), K)``."""
    B, N = masked.shape
    subsets = list(combinations(range(N), N - int(masked[0].sum())))
    code = [sum(1 << item for item in subset) for subset in subsets]
    counts = ((~masked).long() << torch.arange(N)).sum(1).bincount(minlength=2**N)[code].double()
    return float(chi2.sf(((counts - B * law) ** 2 / (B * law)).sum(), len(subsets) - 1))


def kdpp_law(L: torch.Tensor, k: int) -> torch.Tensor:
    subsets = combinations(range(len(L)), k)
    weights = torch.stack([torch.linalg.det(L[list(s)][:, list(s)]) for s in subsets])
    return weights / weights.sum()


@pytest.mark.parametrize("bandwidth", [0.5, 1.0])
def test_visible_sets_follow_the_kdpp(bandwidth):
    tokens = torch.randn(6, 4, generator=fold_in(0, 1))
    masked = draw(KDPPMask(bandwidth=bandwidth), tokens.expand(20_000, -1, -1), 3).masked
    L = gaussian_kernel(tokens.double(), bandwidth=bandwidth)
    assert fits(masked, kdpp_law(L, 3)) > 0.01
    assert fits(masked, kdpp_law(gaussian_kernel(tokens.double(), bandwidth=0.7), 3)) < 1e-6
    assert fits(masked, torch.full((20,), 1 / 20).double()) < 1e-6


def test_too_few_different_patches_are_filled_counted_and_logged_once(caplog):
    tokens = torch.randn(4, 12, 6, generator=fold_in(0, 2))
    tokens[1] = tokens[1, :1]  # one patch, repeated
    tokens[3, 3:] = tokens[3, :1]  # three different ones
    strategy = KDPPMask()
    with caplog.at_level(logging.WARNING, logger="dppmask"):
        for seed in (0, 1):
            mask = draw(strategy, tokens, 6, seed=seed)
            assert mask.masked.sum(1).tolist() == [6] * 4
            assert strategy.last_fallback.tolist() == [False, True, False, True]
            assert not mask.masked[3, 1:3].any()  # both patches that occur once are drawn
    assert strategy.num_fallback == 4
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "KDPPMask: 2 of 4 images have fewer different patches than must be visible"
    ]


def test_a_flat_image_gets_a_random_mask():
    masked = draw(KDPPMask(), torch.ones(20_000, 8, 3), 5).masked
    visible = (~masked).double().mean(0)
    assert (visible - 3 / 8).abs().max() < 4 * (3 / 8 * 5 / 8 / 20_000) ** 0.5


def test_whole_images_are_no_fallback():
    strategy = KDPPMask()
    tokens = torch.ones(3, 8, 3)
    assert not draw(strategy, tokens, 0).masked.any()
    draw(strategy, tokens, torch.tensor([0, 7, 0]))
    assert strategy.num_fallback == 0


def test_rows_with_different_counts_equal_rows_drawn_alone():
    tokens, counts = torch.randn(5, 20, 16, generator=fold_in(0, 3)), torch.tensor([19, 3, 0, 12, 12])
    ragged = draw(KDPPMask(), tokens, counts).masked
    for row, count in enumerate(counts.tolist()):
        assert torch.equal(ragged[row], draw(KDPPMask(), tokens, count).masked[row])


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        KDPPMask(bandwidth=-1.0)
    with pytest.raises(ValueError, match="source must say what describes a patch, got 'rgb'"):
        KDPPMask(source="rgb")


def test_photographs_never_fall_back():
    images = pasted_objects(8, size=112).images
    strategy = KDPPMask(source="pixels")
    for counts in (36, torch.tensor([36, 24, 0, 40, 10, 36, 25, 12])):
        context = MaskContext(images=images, grid=(7, 7))
        mask = strategy(context, counts, generator=fold_in(0, 5))
        assert mask.masked.sum(1).tolist() == (torch.zeros(8).long() + counts).tolist()
        assert not strategy.last_fallback.any()
    assert strategy.num_fallback == 0


def test_what_is_filled_at_random_is_independent_of_what_is_drawn():
    tokens = torch.eye(3)[[0, 1, 2, 2, 2, 2]].expand(20_000, -1, -1)
    visible = ~draw(
        KDPPMask(), tokens, 2
    ).masked  # 0, 1 and one of the last four are drawn, another is filled in
    assert visible[:, :2].all()
    pairs = visible[:, 2:].long() @ torch.tensor([1, 2, 4, 8])
    counts = pairs.bincount(minlength=16)[[3, 5, 6, 9, 10, 12]].double()
    assert chi2.sf((counts - 20_000 / 6).square().sum() / (20_000 / 6), 5) > 0.001


@pytest.mark.gpu
def test_a_gpu_waits_once():
    context = MaskContext(tokens=torch.randn(4, 49, 64, generator=fold_in(0, 6)).cuda())
    strategy, generator = KDPPMask(), fold_in(0, 7)
    strategy(context, 36, generator=generator)  # libraries set themselves up
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            strategy(context, 36, generator=generator)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(warning.message) for warning in caught) <= 1
