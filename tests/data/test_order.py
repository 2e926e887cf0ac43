"""An order of rows that is random, and yet reads each block once and few at a time."""

import numpy as np
import pytest
import torch

from dppmask.data.module import SlotSampler
from dppmask.data.order import RUN, blockwise_order
from dppmask.rng import fold_in


def order(lengths, *, window=64, lanes=4, seed=0):
    return blockwise_order(np.cumsum(lengths), window=window, lanes=lanes, generator=fold_in(seed))


@pytest.mark.parametrize("lengths", [[1], [5], [100] * 7, [3, 0, 200, 1, 64, 65], [1] * 50])
@pytest.mark.parametrize(("window", "lanes"), [(1, 1), (64, 4), (10_000, 3), (2, 100)])
def test_every_row_once_and_another_order_each_time(lengths, window, lanes):
    orders = [order(lengths, window=window, lanes=lanes, seed=seed) for seed in (0, 0, 1)]
    assert all(sorted(rows.tolist()) == list(range(sum(lengths))) for rows in orders)
    assert torch.equal(orders[0], orders[1])
    if sum(lengths) > 5:
        assert not torch.equal(orders[0], orders[2])


def test_one_lane_and_a_window_of_everything_is_uniformly_random():
    """Each of three rows, in blocks of two and one, stands first equally often: chi-squared, 2 degrees."""
    first = torch.stack([order([2, 1], window=9, lanes=1, seed=seed)[0] for seed in range(3000)])
    counts = torch.bincount(first, minlength=3)
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8  # p = 0.001


def test_few_blocks_are_open_at_a_time():
    window, lanes = 128, 4
    blocks = order([16] * 100, window=window, lanes=lanes) // 16
    places = [(blocks == block).nonzero() for block in range(100)]
    opened = torch.zeros(len(blocks) + 1, dtype=torch.int64)
    for place in places:
        opened[place.min()] += 16
        opened[place.max() + 1] -= 16
    assert opened.cumsum(0).max() <= window + lanes * 16


@pytest.mark.parametrize(("world_size", "workers"), [(1, 4), (2, 2), (4, 1)])
def test_no_two_workers_read_the_same_block(world_size, workers):
    readers: dict[int, set[tuple[int, int]]] = {}
    for rank in range(world_size):
        sampler = SlotSampler(
            16 * 800,
            batch_size=RUN,
            seed=3,
            world_size=world_size,
            rank=rank,
            order=lambda generator: blockwise_order(
                np.arange(16, 16 * 801, 16), window=256, lanes=4, generator=generator
            ),
        )
        for number, batch in enumerate(sampler):
            for _, row in batch:
                readers.setdefault(row // 16, set()).add((rank, number % workers))
    assert {len(each) for each in readers.values()} == {1}
