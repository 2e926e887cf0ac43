import torch
from scipy.stats import chi2

from dppmask.masks import Mask, MaskContext, RandomMask
from dppmask.rng import fold_in


def hidden_equally_often(masked: torch.Tensor) -> float:
    """The p-value of "each patch is hidden equally often", for ``masked [B, N]`` with equal counts."""
    B, N = masked.shape
    share = masked[0].sum().item() / N
    counts = masked.sum(0).double()
    statistic = ((counts - B * share) ** 2).sum() / (B * share * (1 - share)) * (N - 1) / N
    return float(chi2.sf(statistic, N - 1))


def test_each_patch_is_hidden_equally_often():
    context = MaskContext.from_tokens(torch.zeros(20_000, 25, 1))
    masked = RandomMask()(context, 18, generator=fold_in(0, 1)).masked
    assert hidden_equally_often(masked) > 0.01


def test_a_small_bias_would_be_noticed():
    noise = torch.rand(20_000, 25, generator=fold_in(0, 2))
    noise[:, 0] += 0.03
    assert hidden_equally_often(Mask.from_scores(noise, 18).masked) < 1e-6


def test_each_set_is_hidden_equally_often():
    context = MaskContext.from_tokens(torch.zeros(30_000, 6, 1))
    masked = RandomMask()(context, 3, generator=fold_in(0, 3)).masked
    codes = (masked.long() << torch.arange(6)).sum(1)
    counts = codes.bincount().double()
    counts = counts[counts > 0]
    assert len(counts) == 20  # all subsets of 3 out of 6
    statistic = ((counts - 1500) ** 2 / 1500).sum()
    assert chi2.sf(statistic, 19) > 0.01


def test_it_keeps_the_smallest_noise():
    context = MaskContext.from_tokens(torch.zeros(3, 10, 1))
    mask = RandomMask()(context, 7, generator=fold_in(0, 4))
    noise = torch.rand(3, 10, generator=fold_in(0, 4))
    assert torch.equal(mask.ids_keep, noise.argsort(1)[:, :3].sort(1).values)
