import math

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from dppmask.models.positions import resize_table, sincos_table
from dppmask.rng import fold_in


@pytest.mark.parametrize("grid", [(1, 1), (5, 5), (3, 4)], ids=str)
def test_table_equals_plain_loops(grid):
    rows, columns = grid
    width = 12
    expected = [[0.0] * width]
    for row in range(rows):
        for column in range(columns):
            channels = []
            for coordinate in (column, row):
                angles = [coordinate / 10000 ** (k / (width / 4)) for k in range(width // 4)]
                channels += [*map(math.sin, angles), *map(math.cos, angles)]
            expected.append(channels)
    torch.testing.assert_close(sincos_table(grid, width), torch.tensor([expected]))


@pytest.mark.parametrize("grid", [(1, 1), (3, 7), (7, 3)], ids=str)
def test_transposed_grid_swaps_the_halves(grid):
    rows, columns = grid
    table = sincos_table(grid, 16, num_prefix=0).view(rows, columns, 2, 8)
    transposed = sincos_table((columns, rows), 16, num_prefix=0).view(columns, rows, 2, 8)
    torch.testing.assert_close(table, transposed.transpose(0, 1).flip(2))


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
def test_prefix_rows_are_zero(num_prefix):
    table = sincos_table((2, 3), 8, num_prefix=num_prefix)
    assert table.shape == (1, num_prefix + 6, 8)
    assert not table[:, :num_prefix].any()
    assert table[:, num_prefix:].any(dim=-1).all()


def test_width_must_be_a_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        sincos_table((2, 2), 6)


def test_resize_keeps_prefix_and_equal_grids():
    table = torch.rand(1, 2 + 12, 4, generator=fold_in(0))
    assert resize_table(table, (3, 4), (3, 4)) is table
    resized = resize_table(table, (3, 4), (6, 5))
    assert resized.shape == (1, 2 + 30, 4)
    torch.testing.assert_close(resized[:, :2], table[:, :2], rtol=0, atol=0)


def test_resize_keeps_a_constant_and_turns_with_the_grid():
    constant = torch.full((1, 12, 4), 3.0)
    torch.testing.assert_close(resize_table(constant, (3, 4), (5, 2)), torch.full((1, 10, 4), 3.0))
    table = torch.rand(1, 12, 4, generator=fold_in(1))
    turned = table.view(1, 3, 4, 4).transpose(1, 2).reshape(1, 12, 4)
    resized = resize_table(table, (3, 4), (5, 6)).view(5, 6, 4)
    torch.testing.assert_close(resize_table(turned, (4, 3), (6, 5)).view(6, 5, 4), resized.transpose(0, 1))


@pytest.mark.parametrize("new_grid", [(6, 5), (2, 3), (3, 8)], ids=str)
def test_resize_is_the_bicubic_one_of_timm(new_grid):
    table = torch.rand(1, 2 + 12, 4, generator=fold_in(2))
    expected = resample_abs_pos_embed(table, new_grid, (3, 4), num_prefix_tokens=2, antialias=False)
    torch.testing.assert_close(resize_table(table, (3, 4), new_grid), expected)
