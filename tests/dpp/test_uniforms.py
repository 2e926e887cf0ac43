import pytest
import torch
from scipy import stats

from dppmask.dpp.uniforms import digest, signs, uniforms
from dppmask.rng import fold_in

MASK = 2**64 - 1
ACCEPTED = 1e-3  # seeds are fixed: what is uniform passes for good


def p_value_of_uniform(numbers, cells=64):
    counts = (numbers.flatten() * cells).long().bincount(minlength=cells)
    return stats.chisquare(counts.numpy()).pvalue


def p_value_of_independence(one, other, cells=8):
    cell = (one * cells).long() * cells + (other * cells).long()
    return stats.chisquare(cell.bincount(minlength=cells**2).numpy()).pvalue


def split_mix(state):
    """The published generator's output function in Python's unbounded integers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return state ^ (state >> 31)


def test_numbers_equal_splitmix64():
    digests, counters = [0, 5, -7, 2**63 - 1], [0, 1, 2, 196 * 344, -1, -196]
    actual = uniforms(torch.tensor(digests)[:, None], torch.tensor(counters))
    expected = [[split_mix((d + c * 0x9E3779B97F4A7C15) & MASK) >> 11 for c in counters] for d in digests]
    assert torch.equal(actual, torch.tensor(expected, dtype=torch.float64) * 2.0**-53)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_uniform_over_rows_and_over_counters(dtype):
    noise = torch.rand(20_000, 3, dtype=dtype, generator=fold_in(0))
    over_rows = uniforms(digest(noise), torch.tensor(17))
    over_counters = uniforms(digest(noise[:1]), torch.arange(20_000))
    for numbers in (over_rows, over_counters):
        assert numbers.dtype == torch.float64
        assert 0 <= numbers.min() <= numbers.max() < 1
        assert p_value_of_uniform(numbers) > ACCEPTED
    assert p_value_of_uniform(over_rows * 0.98) < 1e-9  # the test can fail


@pytest.mark.parametrize("distance", [1, 6, 196, -200])
def test_counters_are_independent(distance):
    digests = digest(torch.rand(20_000, 5, generator=fold_in(1)))
    one, other = (uniforms(digests, torch.tensor(counter)) for counter in (3, 3 + distance))
    assert p_value_of_independence(one, other) > ACCEPTED
    assert p_value_of_independence(one, one) < 1e-9
    along = uniforms(digests[0], torch.arange(40_000))
    assert p_value_of_independence(along[:20_000], along.roll(-distance)[:20_000]) > ACCEPTED


@pytest.mark.parametrize(("dtype", "bit"), [(torch.float32, 24), (torch.float64, 53)])
@pytest.mark.parametrize("place", [0, 6])
def test_rows_that_differ_in_one_bit_are_unrelated(dtype, bit, place):
    noise = torch.rand(20_000, 7, dtype=dtype, generator=fold_in(2))
    grid = (noise[:, place].double() * 2**bit).long()
    changed = noise.clone()
    changed[:, place] = ((grid ^ 1).double() / 2**bit).to(dtype)
    assert (changed != noise).any(1).all()
    numbers = [uniforms(digest(rows), torch.tensor(0)) for rows in (noise, changed)]
    assert p_value_of_independence(*numbers) > ACCEPTED


def test_order_within_a_row_and_number_of_entries_matter():
    noise = torch.rand(7, generator=fold_in(3))
    rows = [noise, noise.flip(0), noise[:6], torch.zeros(7), torch.zeros(6), torch.ones(7) - 2**-24]
    assert len({int(digest(row)) for row in rows}) == len(rows)


def test_digests_of_many_rows_differ():
    noise = torch.rand(100_000, 2, dtype=torch.float64, generator=fold_in(4))
    assert len(digest(noise).unique()) == len(noise)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_a_row_gives_the_same_in_any_batch(batch):
    noise = torch.rand(*batch, 9, generator=fold_in(5))
    digests = digest(noise)
    assert digests.shape == batch
    assert digests.flatten().tolist() == [int(digest(row)) for row in noise.reshape(-1, 9)]
    numbers = uniforms(digests[..., None], torch.arange(4))
    assert numbers.shape == (*batch, 4)
    assert torch.equal(numbers.reshape(-1, 4)[-1], uniforms(digests.flatten()[-1], torch.arange(4)))


def test_signs_are_a_fair_and_fixed_table():
    table = signs(196, 16, device=torch.device("cpu"))
    assert set(table.flatten().tolist()) == {-1.0, 1.0}
    assert table.mean().abs() < 4 / table.numel() ** 0.5
    inner = table @ table.mT / 16
    assert (inner - torch.eye(196)).square().mean().sqrt() == pytest.approx(0.25, rel=0.1)
    assert torch.equal(table, signs(196, 16, device=torch.device("cpu")))


@pytest.mark.gpu
def test_a_gpu_gives_the_same_numbers():
    noise = torch.rand(100, 196, generator=fold_in(6))
    expected = uniforms(digest(noise)[:, None], torch.arange(-5, 500))
    actual = uniforms(digest(noise.cuda())[:, None], torch.arange(-5, 500, device="cuda"))
    assert torch.equal(actual.cpu(), expected)
    assert torch.equal(
        signs(196, 16, device=torch.device("cuda")).cpu(), signs(196, 16, device=torch.device("cpu"))
    )
