import math
import random

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import chi2_contingency

from dppmask.masks import BlockMask, MaskContext, Tokens
from dppmask.masks.streams import uniforms
from dppmask.rng import fold_in

ACCEPTED, REJECTED = 1e-3, 1e-9  # seeds are fixed: a right sampler passes for good
DRAWS = 3000
GRID = (14, 14)


def plain_blocks(grid, target, draw, *, min_area=None, aspect=0.3, tries=10, inclusive=True):
    """One mask by the published rules, patch by patch.

    ``draw(block, attempt)`` gives four uniform numbers: area, aspect, top, left. ``inclusive=False`` is the
    known port that never lets a block touch the last row or column.
    """
    rows, columns = grid
    min_area = (min(grid) // 3) ** 2 if min_area is None else min_area
    hidden = np.zeros(grid, dtype=bool)
    block = 0
    while hidden.sum() < target:
        remaining = target - int(hidden.sum())
        for attempt in range(tries):
            u = draw(block, attempt)
            area = min_area + (remaining - min_area) * u[0]
            ratio = math.exp(math.log(aspect) + (math.log(1 / aspect) - math.log(aspect)) * u[1])
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height >= rows or width >= columns:
                continue
            top = math.floor(u[2] * (rows - height + inclusive))
            left = math.floor(u[3] * (columns - width + inclusive))
            there = np.s_[top : top + height, left : left + width]
            if 0 < (~hidden[there]).sum() <= remaining:
                hidden[there] = True
                break
        else:
            return hidden
        block += 1
    return hidden


def plain_masks(target, *, count=DRAWS, seed=0, grid=GRID, **rules):
    numbers = random.Random(seed)

    def draw(block, attempt):
        return [numbers.random() for _ in range(4)]

    return np.stack([plain_blocks(grid, target, draw, **rules) for _ in range(count)])


def our_masks(target, *, count=DRAWS, seed=0, grid=GRID, **options):
    context = MaskContext(grid=grid, tokens=torch.zeros(count, grid[0] * grid[1], 1))
    mask = BlockMask(**options)(context, target, generator=fold_in(1, seed))
    return mask.masked.unflatten(1, grid).numpy()


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (5, 9), (2, 3), (1, 7)], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.75, 0.97])
def test_follows_the_published_rules_number_by_number(grid, share):
    num_patches = grid[0] * grid[1]
    target = round(share * num_patches)
    noise = torch.rand(40, num_patches, generator=fold_in(0, *grid))
    numbers = uniforms(noise, 32 * 10 * 4).double().unflatten(1, (32, 10, 4))
    blocks = BlockMask(exact=False).choose(grid, noise, target).masked.unflatten(1, grid)
    for row, block in enumerate(blocks):
        expected = plain_blocks(grid, target, lambda *index, row=row: numbers[row, *index].tolist())
        assert np.array_equal(block, expected)


def two_samples(one, other):
    """The p-value that two samples of integers have one law; rare values are joined."""
    low, high = min(one.min(), other.min()), max(one.max(), other.max())
    table = np.stack([np.bincount(x - low, minlength=high - low + 1) for x in (one, other)])
    order = np.argsort(table.sum(0))
    rare = order[table.sum(0)[order].cumsum() < 40]
    common = np.setdiff1d(order, rare)
    table = np.concatenate([table[:, common], table[:, rare].sum(1, keepdims=True) + 1], 1)
    return chi2_contingency(table).pvalue


def components(masks):
    return np.array([ndimage.label(mask)[1] for mask in masks])


def edges(masks):
    """Borders between a hidden and a visible patch, by twos: long where blocks are thin or many."""
    return (
        (masks[:, 1:] ^ masks[:, :-1]).sum((1, 2)) + (masks[:, :, 1:] ^ masks[:, :, :-1]).sum((1, 2))
    ) // 2


def sides(masks):
    """Rows and columns with a hidden patch: the height and width of a single block."""
    return masks.any(2).sum(1), masks.any(1).sum(1)


def worst_patch(one, other):
    """The largest deviation between the frequencies of any patch, in standard errors."""
    share = (one.mean(0) + other.mean(0)) / 2
    error = np.sqrt(share * (1 - share) * (1 / len(one) + 1 / len(other)))
    return (np.abs(one.mean(0) - other.mean(0)) / np.maximum(error, 1e-12)).max()


STATISTICS = {"count": lambda masks: masks.sum((1, 2)), "components": components, "edges": edges}
WRONG = {  # statistic → rules under which it must be seen to differ
    "count": {"tries": 3},
    "components": {"min_area": 4},
    "edges": {"aspect": 0.6},
}


@pytest.mark.parametrize("target", [58, 75, 147])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_masks_have_the_published_law(target, statistic):
    measure = STATISTICS[statistic]
    ours = measure(our_masks(target, exact=False))
    assert two_samples(ours, measure(plain_masks(target))) > ACCEPTED
    assert two_samples(ours, measure(plain_masks(target, **WRONG[statistic]))) < REJECTED


@pytest.mark.parametrize("target", [58, 147])
def test_patches_are_hidden_as_often_as_published(target):
    ours = our_masks(target, exact=False)
    assert worst_patch(ours, plain_masks(target)) < 4.2  # 196 patches
    assert worst_patch(ours, plain_masks(target, inclusive=False)) > 10


@pytest.mark.parametrize("grid", [(14, 14), (3, 9), (2, 2)], ids=str)
@pytest.mark.parametrize("exact", [True, False])
def test_every_patch_can_be_hidden(grid, exact):
    masks = our_masks(grid[0] * grid[1] // 2, grid=grid, exact=exact)
    assert masks.any(0).all()
    assert not masks.all(0).any()


@pytest.mark.parametrize("target", [1, 75, 147, 195])
def test_the_noise_makes_up_for_what_is_missing(target):
    blocks, exact = our_masks(target, exact=False), our_masks(target)
    assert (blocks.sum((1, 2)) <= target).all()
    assert (exact.sum((1, 2)) == target).all()
    assert not (blocks & ~exact).any()
    noise = torch.rand(DRAWS, 196, generator=fold_in(1, 0)).unflatten(1, GRID).numpy()
    filled = exact & ~blocks
    least_filled = np.where(filled, noise, 1.0).min((1, 2))
    most_visible = np.where(exact, 0.0, noise).max((1, 2))
    assert (least_filled >= most_visible).all()


def test_how_often_blocks_fall_short():
    missing = 75 - our_masks(75, exact=False).sum((1, 2))
    assert 0.25 < (missing > 0).mean() < 0.4
    assert 0.3 < missing.mean() < 0.7


def test_a_grid_without_room_for_blocks_is_left_to_the_noise():
    for grid in ((1, 9), (9, 1), (1, 2)):
        assert not our_masks(1, grid=grid, exact=False).any()
        often = our_masks(1, grid=grid, count=3000).mean(0)
        assert np.abs(often - 1 / often.size).max() < 4 * math.sqrt(1 / often.size / 3000)


@pytest.mark.parametrize("max_area", [1, 4, None])
def test_no_block_is_larger_than_allowed(max_area):
    masks = our_masks(12, exact=False, min_area=1, max_area=max_area, count=500)
    assert (masks.sum((1, 2)) <= 12).all()
    parts = components(masks).mean()
    assert parts > {1: 7, 4: 3, None: 1}[max_area]
    assert parts < {1: 12, 4: 5, None: 3}[max_area]


def test_square_blocks_are_square():
    masks = our_masks(9, exact=False, min_area=9, max_area=9, min_aspect=1.0, count=500)
    height, width = sides(masks)
    assert (masks.sum((1, 2)) == 9).all()
    assert (height == 3).all()
    assert (width == 3).all()


def test_rows_with_different_counts_equal_rows_drawn_alone():
    noise, counts = torch.rand(5, 196, generator=fold_in(2)), torch.tensor([195, 3, 0, 75, 75])
    for strategy in (BlockMask(), BlockMask(exact=False), BlockMask(max_area=20)):
        together = strategy.choose(GRID, noise, counts)
        assert together.num_masked is None
        for row, count in enumerate(counts.tolist()):
            alone = strategy.choose(GRID, noise[row : row + 1], count)
            assert torch.equal(together.masked[row], alone.masked[0])


def test_without_exact_a_mask_is_ragged():
    context = MaskContext(grid=(8, 8), teacher=Tokens(torch.zeros(20, 1, 2), torch.zeros(20, 64, 2)))
    mask = BlockMask(exact=False)(context, 40, generator=fold_in(3))
    assert mask.num_masked is None
    assert len(mask.masked.sum(1).unique()) > 1


@pytest.mark.parametrize("num_masked", [75, torch.tensor([0, 195, 75])], ids=str)
@pytest.mark.parametrize("exact", [True, False])
def test_compiles_to_one_graph(num_masked, exact):
    strategy, noise = BlockMask(exact=exact), torch.rand(3, 196, generator=fold_in(4))
    compiled = torch.compile(strategy.choose, fullgraph=True, backend="eager")
    actual, expected = (choose(GRID, noise, num_masked) for choose in (compiled, strategy.choose))
    assert torch.equal(actual.masked, expected.masked)
    assert actual.num_masked == expected.num_masked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_area": 0}, "min_area must be at least 1 patch, got 0"),
        ({"max_area": 0}, "max_area must be at least 1 patch, got 0"),
        ({"min_aspect": 0.0}, r"min_aspect must be in \(0, 1\], got 0.0"),
        ({"min_aspect": 1.5}, r"min_aspect must be in \(0, 1\], got 1.5"),
        ({"min_aspect": float("nan")}, "min_aspect must be in"),
        ({"tries": 0}, "tries must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused_when_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlockMask(**arguments)


def test_the_grid_must_be_known():
    with pytest.raises(ValueError, match=r"pass grid=\(rows, columns\) to the context"):
        BlockMask()(MaskContext.from_tokens(torch.zeros(1, 4, 2)), 2, generator=fold_in(5))
