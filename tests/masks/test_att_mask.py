import math
from itertools import combinations, pairwise

import pytest
import torch
from scipy.stats import chisquare

from dppmask.masks import AttMask, MaskContext, Tokens
from dppmask.rng import fold_in


def attention_of(batch=6, heads=3, num_patches=196, *, seed=0):
    logits = 3 * torch.randn(batch, heads, num_patches, generator=fold_in(0, seed))
    return logits.softmax(-1)


def context(attention):
    batch, _, num_patches = attention.shape
    teacher = Tokens(torch.zeros(batch, 1, 2), torch.zeros(batch, num_patches, 2), attention)
    return MaskContext(teacher=teacher)


def draw(strategy, attention, num_masked, *, seed=0):
    return strategy(context(attention), num_masked, generator=fold_in(1, seed))


def by_attention(row):
    """Patches of one image, least attended first, by the mean over heads in plain Python."""
    heads = row.double().tolist()
    mean = [sum(values) / len(heads) for values in zip(*heads, strict=True)]
    return sorted(range(len(mean)), key=mean.__getitem__)


def hidden(mask, row):
    return set(mask.masked[row].nonzero().flatten().tolist())


@pytest.mark.parametrize("num_masked", [0, 1, 58, 117, 195])
def test_high_and_low_hide_the_ends_of_the_order(num_masked):
    attention = attention_of()
    high, low = (draw(AttMask(variant), attention, num_masked) for variant in ("high", "low"))
    for row in range(6):
        order = by_attention(attention[row])
        assert hidden(high, row) == set(order[196 - num_masked :])
        assert hidden(low, row) == set(order[:num_masked])


@pytest.mark.parametrize("num_masked", [5, 19, 58, 117, 180])
def test_hint_follows_the_published_rule(num_masked):
    attention = attention_of(batch=200)
    ragged = draw(AttMask("hint", exact=False), attention, num_masked)
    exact = draw(AttMask("hint"), attention, num_masked)
    assert ragged.num_masked is None
    shown_at_all = []
    for row in range(200):
        order = by_attention(attention[row])
        top, candidates = set(order[196 - num_masked :]), set(order[-19:])
        shown = top - hidden(ragged, row)
        assert hidden(ragged, row) <= top
        assert shown <= candidates
        shown_at_all.append(len(shown))
        hints = candidates - hidden(exact, row)
        assert hints >= shown
        if num_masked >= 19:  # every candidate would be hidden but for the hints
            assert hints == shown
            assert 1 <= len(shown) <= 9
            rest = [patch for patch in order if patch not in hints]
            assert hidden(exact, row) == set(rest[-num_masked:])
    if num_masked >= 19:
        assert abs(sum(shown_at_all) / 200 - 5.4) < 0.5  # floor of 19.6 · U(0.1, 0.5)
        assert ragged.masked.sum(1).tolist() == [num_masked - shown for shown in shown_at_all]


def test_the_number_of_hints_has_the_published_law():
    attention = attention_of(batch=1).expand(20_000, -1, -1)
    counts = 117 - draw(AttMask("hint", exact=False), attention, 117).masked.sum(1)
    low, high = 1.96, 9.8  # 0.1 · 196 times the bounds of the ratio
    edges = [low, *range(2, 10), high]
    law = torch.tensor([(b - a) / (high - low) for a, b in pairwise(edges)])
    found = counts.bincount(minlength=10)[1:].double()
    assert chisquare(found, 20_000 * law.double() / law.double().sum()).pvalue > 1e-3
    even = torch.full((9,), 1 / 9).double()
    assert chisquare(found, 20_000 * even).pvalue < 1e-9


@pytest.mark.parametrize("flat", [False, True], ids=["ordered", "tied"])
def test_hints_are_drawn_uniformly_without_replacement(flat):
    """Two of four candidates of eight patches: every pair is equally likely, also where all are tied."""
    attention = attention_of(batch=1, num_patches=8).expand(20_000, -1, -1)
    if flat:
        attention = torch.full_like(attention, 1 / 8)
    strategy = AttMask("hint", show_max=0.5, show_ratio=(0.5, 0.5), exact=False)
    mask = draw(strategy, attention, 8 - 1)
    patches = range(8) if flat else by_attention(attention[0])[-4:]
    shown = ~mask.masked
    if not flat:
        shown[:, by_attention(attention[0])[0]] = False  # the one patch that is visible without hints
        pairs = [sum(1 << patch for patch in pair) for pair in combinations(patches, 2)]
        counts = (shown.long() << torch.arange(8)).sum(1).bincount(minlength=256)
        assert counts[pairs].sum() == 20_000
        assert chisquare(counts[pairs]).pvalue > 1e-3
    else:
        share = shown.double().mean(0)
        assert (share - 3 / 8).abs().max() < 4 * math.sqrt(3 / 8 * 5 / 8 / 20_000)


@pytest.mark.parametrize("variant", ["high", "hint", "low"])
def test_tied_patches_are_hidden_equally_often(variant):
    attention = torch.full((20_000, 2, 12), 1 / 12)
    share = draw(AttMask(variant), attention, 5).masked.double().mean(0)
    assert (share - 5 / 12).abs().max() < 4 * math.sqrt(5 / 12 * 7 / 12 / 20_000)


def test_a_tie_is_between_the_tied_alone():
    attention = torch.tensor([[[0.4, 0.1, 0.1, 0.1, 0.3]]]).expand(3000, -1, -1)
    masked = draw(AttMask("high"), attention, 3).masked
    assert masked[:, [0, 4]].all()
    assert (masked[:, 1:4].sum(0) - 1000).abs().max() < 4 * math.sqrt(3000 * 2 / 9)


@pytest.mark.parametrize("variant", ["high", "low"])
def test_without_ties_the_noise_does_not_matter(variant):
    strategy, attention = AttMask(variant), attention_of()
    assert not strategy.is_random
    masks = [draw(strategy, attention, 58, seed=seed).masked for seed in range(3)]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("exact", [True, False])
def test_a_small_grid_may_have_no_hints(exact):
    """With 9 patches no candidate is left, with 64 some images have none: that is no error."""
    for num_patches, seed in ((9, 1), (64, 2)):
        attention = attention_of(batch=300, num_patches=num_patches, seed=seed)
        count = num_patches // 2
        hint = draw(AttMask("hint", exact=exact), attention, count).masked
        high = draw(AttMask("high"), attention, count).masked
        same = (hint == high).all(1)
        assert same.all() if num_patches == 9 else 0 < same.sum() < 300


def test_when_all_but_one_are_hidden_hints_are_the_last_to_stay():
    attention = attention_of(batch=50)
    mask = draw(AttMask("hint", show_ratio=(0.3, 0.3)), attention, 195)
    for row in range(50):
        (visible,) = (~mask.masked[row]).nonzero().flatten().tolist()
        assert visible in by_attention(attention[row])[-19:]


@pytest.mark.parametrize(
    ("show_max", "num_patches", "candidates"), [(0.1, 196, 19), (0.29, 100, 29), (0.1, 30, 3), (1.0, 49, 49)]
)
def test_products_are_not_floored_below_a_whole_number(show_max, num_patches, candidates):
    strategy = AttMask("hint", show_max=show_max, show_ratio=(1.0, 1.0), exact=False)
    mask = draw(strategy, attention_of(num_patches=num_patches), num_patches - 1)
    assert mask.masked.sum(1).tolist() == [max(num_patches - 1 - candidates, 0)] * 6


@pytest.mark.parametrize("variant", ["high", "hint", "low"])
@pytest.mark.parametrize("exact", [True, False])
def test_rows_with_different_counts_equal_rows_drawn_alone(variant, exact):
    attention, counts = attention_of(batch=5), torch.tensor([195, 3, 0, 58, 58])
    strategy = AttMask(variant, exact=exact)
    together = draw(strategy, attention, counts)
    for row, count in enumerate(counts.tolist()):
        assert torch.equal(together.masked[row], draw(strategy, attention, count).masked[row])


@pytest.mark.parametrize("variant", ["high", "hint", "low"])
@pytest.mark.parametrize("num_masked", [58, torch.tensor([0, 195, 58])], ids=str)
def test_compiles_to_one_graph(variant, num_masked):
    strategy, noise = AttMask(variant), torch.rand(3, 196, generator=fold_in(2))
    attention = attention_of(batch=3).mean(1)
    compiled = torch.compile(strategy.choose, fullgraph=True, backend="eager")
    actual, expected = (choose(attention, noise, num_masked) for choose in (compiled, strategy.choose))
    assert torch.equal(actual.masked, expected.masked)
    assert actual.num_masked == expected.num_masked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "hints"}, "got 'hints'; did you mean hint?"),
        ({"show_max": 1.1}, r"show_max must be in \[0, 1\], got 1.1"),
        ({"show_max": float("nan")}, "show_max must be in"),
        ({"show_ratio": (0.5, 0.1)}, r"show_ratio must be \(low, high\) .* got \(0.5, 0.1\)"),
        ({"show_ratio": (0.5, 1.5)}, "show_ratio must be"),
    ],
)
def test_wrong_options_are_refused_when_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttMask(**arguments)


def test_a_teacher_that_does_not_serve_is_refused():
    attention = attention_of(batch=2, num_patches=4)
    blind = MaskContext(teacher=Tokens(torch.zeros(2, 1, 3), torch.zeros(2, 4, 3)))
    with pytest.raises(ValueError, match="encode its images with attention=True"):
        AttMask()(blind, 2, generator=fold_in(3))
    other = MaskContext(grid=(2, 3), teacher=context(attention).teacher)
    with pytest.raises(ValueError, match=r"\[2, heads, 6\] for grid \(2, 3\), got \[2, 3, 4\]"):
        AttMask()(other, 2, generator=fold_in(3))
    attention[1, 0, 2] = float("nan")
    with pytest.raises(ValueError, match="attention must be finite"):
        draw(AttMask(), attention, 2)
