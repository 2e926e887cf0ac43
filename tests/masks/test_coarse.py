import pytest
import torch

from dppmask.masks import Coarse, DPPMask, Mask, MaskContext, MaskStrategy, RandomMask, Tokens
from dppmask.masks.wrappers import coarsen, join_cells, split_cells
from dppmask.rng import fold_in


def context(batch: int = 4, grid: tuple[int, int] = (4, 6)) -> MaskContext:
    tokens = torch.randn(batch, grid[0] * grid[1], 5, generator=fold_in(0, batch, *grid))
    return MaskContext.from_tokens(tokens, grid)


def hidden_per_cell(mask: Mask, cells: tuple[int, int], cell: int) -> torch.Tensor:
    return split_cells(mask.masked.long(), cells, cell).sum(-1)


def test_cells_are_squares_of_neighbours():
    numbers = torch.arange(24)[None]
    cells = split_cells(numbers, (2, 3), 2)
    assert cells[0, 0].tolist() == [0, 1, 6, 7]
    assert cells[0, 5].tolist() == [16, 17, 22, 23]
    owner = join_cells(torch.arange(6)[None], (2, 3), 2)
    assert torch.equal(split_cells(owner, (2, 3), 2), torch.arange(6)[None, :, None].expand(1, 6, 4))


@pytest.mark.parametrize("num_masked", [4, 12, 20])
def test_whole_cells_are_hidden(num_masked):
    mask = Coarse(RandomMask())(context(), num_masked, generator=fold_in(0, 1))
    assert set(hidden_per_cell(mask, (2, 3), 2).unique().tolist()) == {0, 4}


def test_too_many_hidden_patches_are_shown_again():
    mask = Coarse(RandomMask())(context(64), 10, generator=fold_in(0, 2))
    per_cell = hidden_per_cell(mask, (2, 3), 2)
    assert ((per_cell > 0).sum(1) == 3).all()  # ceil(10 / 4) cells
    assert (per_cell.sum(1) == 10).all()


def test_too_few_are_completed_from_the_last_visible_cell():
    mask = Coarse(RandomMask())(context(64), 23, generator=fold_in(0, 3))
    assert (hidden_per_cell(mask, (2, 3), 2).sort(1).values == torch.tensor([3, 4, 4, 4, 4, 4])).all()


def test_a_count_per_row():
    counts = torch.tensor([0, 5, 12, 23])
    mask = Coarse(RandomMask())(context(), counts, generator=fold_in(0, 4))
    assert mask.masked.sum(1).tolist() == counts.tolist()


def test_one_cell_on_the_whole_grid_is_a_random_mask():
    mask = Coarse(RandomMask(), cell=4)(context(3, (4, 4)), 11, generator=fold_in(0, 5))
    assert torch.equal(mask.masked, RandomMask()(context(3, (4, 4)), 11, generator=fold_in(0, 5)).masked)


@pytest.mark.parametrize("strategy", [RandomMask(), DPPMask(0.2)], ids=repr)
def test_cells_of_one_patch_change_nothing(strategy):
    coarse = Coarse(strategy, cell=1)(context(), 15, generator=fold_in(0, 6))
    fine = strategy(context(), 15, generator=fold_in(0, 6))
    assert torch.equal(coarse.masked, fine.masked)


@pytest.mark.parametrize("num_masked", [12, 14, 23])
def test_each_patch_is_hidden_equally_often(num_masked):
    batch = 20_000
    masked = Coarse(RandomMask())(context(batch), num_masked, generator=fold_in(0, 7)).masked
    share = num_masked / 24
    deviation = (masked.double().mean(0) - share) / (share * (1 - share) / batch) ** 0.5
    assert deviation.abs().max() < 4


def test_the_wrapped_strategy_sees_cell_averages():
    fine = context(2)
    teacher = Tokens(torch.zeros(2, 1, 3), torch.arange(48.0).reshape(2, 24, 1), torch.ones(2, 2, 24))
    full = MaskContext(torch.zeros(2, 3, 8, 12), (4, 6), 0.5, 3, lambda: fine.tokens, lambda: teacher)
    coarse = coarsen(full, 2)
    assert coarse.grid == (2, 3)
    assert (coarse.images is full.images, coarse.progress, coarse.epoch) == (True, 0.5, 3)
    torch.testing.assert_close(coarse.tokens[:, 0], fine.tokens[:, [0, 1, 6, 7]].mean(1))
    assert coarse.teacher.patches[0, 0].item() == (0 + 1 + 6 + 7) / 4
    assert coarse.teacher.attention.shape == (2, 2, 6)
    assert coarsen(fine, 2).teacher is None


def test_every_field_of_the_mask_is_spread():
    class Whole(MaskStrategy):
        def choose(self, features, noise, num_masked):
            mask = Mask.from_scores(noise, num_masked)
            return Mask(mask.masked, mask.num_masked, mask.masked & (noise > 0.8), noise, noise)

    mask = Coarse(Whole())(context(32), 14, generator=fold_in(0, 8))
    for values in (mask.scores, mask.soft):
        cells = split_cells(values, (2, 3), 2)
        assert torch.equal(cells, cells[..., :1].expand_as(cells))
    assert not (mask.target & ~mask.masked).any()
    assert 0 < mask.target.sum() < mask.masked.sum()


def test_errors_say_what_to_do():
    generator = fold_in(0, 9)
    with pytest.raises(ValueError, match="cell must be at least 1, got 0"):
        Coarse(RandomMask(), cell=0)
    with pytest.raises(ValueError, match="cell must divide the grid, got cell 3 for 4 × 6 patches"):
        Coarse(RandomMask(), cell=3)(context(), 12, generator=generator)
    with pytest.raises(ValueError, match=r"pass grid=\(rows, columns\)"):
        Coarse(RandomMask())(MaskContext.from_tokens(torch.zeros(2, 16, 3)), 8, generator=generator)
