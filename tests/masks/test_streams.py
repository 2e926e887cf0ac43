import math

import pytest
import torch
from scipy.stats import chisquare, kstest

from dppmask.masks.streams import uniforms
from dppmask.rng import fold_in


def noise(batch, num_patches, *, seed=0):
    return torch.rand(batch, num_patches, generator=fold_in(0, seed))


def by_hand(row, count):
    """The hash in Python's unbounded integers."""
    word = 2**32

    def mix(x):
        x = (x ^ (x >> 16)) * 0x85EBCA6B % word
        x = (x ^ (x >> 13)) * 0xC2B2AE35 % word
        return x ^ (x >> 16)

    bits = [int(value) for value in row.view(torch.int32).tolist()]
    step = 0x9E3779B9
    first, second = (
        mix(sum(mix(b ^ ((i * step + lane) % word)) for i, b in enumerate(bits, start=1)) % word)
        for lane in (0x243F6A88, 0x13198A2E)
    )
    return [(mix(first ^ mix((second + c * step) % word)) >> 8) / 2**24 for c in range(count)]


@pytest.mark.parametrize("num_patches", [1, 2, 196])
def test_equals_the_hash_in_plain_integers(num_patches):
    rows = noise(3, num_patches)
    assert uniforms(rows, 50).tolist() == [by_hand(row, 50) for row in rows]


def test_uniform_over_rows_and_over_counters():
    drawn = uniforms(noise(2000, 5), 100).double()
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    for sample in (drawn[:, 0], drawn[:, 99], drawn[0], drawn[1999], drawn.flatten()):
        assert kstest(sample.numpy(), "uniform").pvalue > 1e-3
    assert kstest((drawn.flatten() ** 1.05).numpy(), "uniform").pvalue < 1e-9  # a slight bend is seen


def test_neighbouring_numbers_are_independent_of_each_other_and_of_the_noise():
    rows = noise(40_000, 4)
    drawn = uniforms(rows, 3)
    pairs = [(drawn[:, 0], drawn[:, 1]), (drawn[:, 1], drawn[:, 2]), (rows[:, 0], drawn[:, 0])]
    pairs += [(rows[:, 3], drawn[:, 2]), (drawn[:-1, 0], drawn[1:, 0])]
    for one, other in pairs:
        cells = (one * 16).long() * 16 + (other * 16).long()
        assert chisquare(cells.bincount(minlength=256)).pvalue > 1e-3


def test_every_entry_of_the_noise_counts_and_so_does_its_place():
    row = noise(1, 30)
    changed = row.repeat(30, 1)
    changed[range(30), range(30)] += 2**-24
    rows = torch.cat([row, row.flip(1), row.roll(1, 1), changed])
    drawn = uniforms(rows, 64)
    assert len(drawn.unique(dim=0)) == len(rows)
    differing = (drawn[1:] * 2**24).long() ^ (drawn[:1] * 2**24).long()
    share = sum(bin(value).count("1") for value in differing.flatten().tolist()) / (24 * differing.numel())
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(24 * differing.numel())


def test_fewer_numbers_are_a_prefix():
    rows = noise(4, 9)
    assert torch.equal(uniforms(rows, 7), uniforms(rows, 20)[:, :7])


def test_compiles_to_one_graph():
    compiled = torch.compile(uniforms, fullgraph=True, backend="eager")
    rows = noise(4, 9)
    assert torch.equal(compiled(rows, 12), uniforms(rows, 12))
