import math

import pytest
import torch

from dppmask.dpp import gaussian_kernel, naive
from dppmask.errors import UserError
from dppmask.evaluation.co_visibility import (
    BATCH,
    CoVisibility,
    co_visibility,
    exact_chances,
    filled,
    rarely_exceeded,
    repeat_image,
    visible_together,
)
from dppmask.masks import AttMask, BlockMask, Coarse, DPPMask, KDPPMask, MaskContext, RandomMask, Tokens
from dppmask.rng import fold_in

GRID = (2, 4)
KDPP = KDPPMask(source="tokens")


def context(*, different=8, seed=0):
    """One image of eight patches, of which so many differ."""
    tokens = torch.randn(1, different, 5, generator=fold_in(seed))
    return MaskContext.from_tokens(tokens[:, [i % different for i in range(8)]], grid=GRID)


def counted(strategy, *, num_masks=2000, seed=0, of=None):
    return visible_together(strategy, of or context(), 4, num_masks=num_masks, seed=seed, title="")


def enumerated(features, k):
    """Chance of every two patches under the k-DPP of features ``[N, D]``, from all subsets."""
    L = gaussian_kernel(features.double())
    return torch.tensor(
        [[naive.inclusion(L, (i, j), k) for j in range(len(L))] for i in range(len(L))], dtype=torch.float64
    )


def test_shares_equal_counting_mask_by_mask():
    strategy, number = DPPMask(), BATCH + 20
    expected = torch.zeros(8, 8)
    for batch, size in enumerate([BATCH, 20]):
        copies = MaskContext.from_tokens(context().tokens.repeat(size, 1, 1), grid=GRID)
        for ids in strategy(copies, 4, generator=fold_in(3, batch)).ids_keep.tolist():
            for i in ids:
                for j in ids:
                    expected[i, j] += 1
    torch.testing.assert_close(
        counted(strategy, num_masks=number, seed=3), expected.double() / number, atol=1e-12, rtol=0
    )


def test_seed_and_noise_are_shared():
    assert torch.equal(counted(RandomMask()), counted(DPPMask(purge_ratio=1.0)))
    assert not torch.equal(counted(RandomMask()), counted(RandomMask(), seed=1))


def test_exact_chances_of_random_masks():
    exact = exact_chances(RandomMask(), context(), 3)
    expected = torch.full((8, 8), 3 * 2 / (8 * 7), dtype=torch.float64).fill_diagonal_(3 / 8)
    torch.testing.assert_close(exact, expected)


def test_exact_chances_of_the_kdpp_equal_enumeration():
    exact = exact_chances(KDPP, context(), 3)
    torch.testing.assert_close(exact, enumerated(context().tokens[0], 3), atol=1e-5, rtol=0)


def test_what_is_not_known_exactly():
    for strategy in (DPPMask(), BlockMask(), Coarse(KDPP), AttMask()):
        assert exact_chances(strategy, context(), 4) is None


@pytest.mark.parametrize("different", [8, 3, 1])
def test_kdpp_masks_have_their_exact_chances_also_where_the_rank_is_too_low(different):
    image = context(different=different)
    found = co_visibility(image, {"kdpp": KDPP}, mask_ratio=0.5, num_masks=5000)["kdpp"]
    upper = torch.ones(8, 8).triu().bool()
    assert found.deviations[upper].abs().max() < rarely_exceeded(int(upper.sum()))
    other = CoVisibility(found.shares, found.num_masks, 4, exact_chances(KDPP, context(seed=1), 4))
    assert other.deviations[upper].abs().max() > 6


def test_filling_up_equals_enumeration():
    pairs, N, size, keep = enumerated(torch.randn(6, 4, generator=fold_in(1)), 2), 6, 2, 4
    law = naive.probabilities(gaussian_kernel(torch.randn(6, 4, generator=fold_in(1)).double()), size)
    expected = torch.zeros(N, N, dtype=torch.float64)
    for sample, probability in law.items():
        fills = [fill for fill in naive.subsets(N, keep - size) if not set(fill) & set(sample)]
        for fill in fills:
            index = torch.tensor(sample + fill)
            expected[index[:, None], index] += probability / len(fills)
    torch.testing.assert_close(filled(pairs, size, keep), expected)
    torch.testing.assert_close(filled(pairs, size, size), pairs)
    torch.testing.assert_close(filled(pairs, size, N), torch.ones_like(pairs))
    torch.testing.assert_close(filled(torch.ones_like(pairs), N, N), torch.ones_like(pairs))


def test_standard_errors_and_deviations_by_hand():
    shares = torch.tensor([[0.5, 0.2], [0.2, 1.0]], dtype=torch.float64)
    exact = torch.tensor([[0.4, 0.2], [0.0, 1.0]], dtype=torch.float64)
    pairs = CoVisibility(shares, 100, 2, exact)
    expected = [[0.05, 0.04], [0.04, 0.0]]
    torch.testing.assert_close(pairs.standard_errors, torch.tensor(expected, dtype=torch.float64))
    deviations = pairs.deviations
    assert deviations[0, 0].item() == pytest.approx(0.1 / math.sqrt(0.4 * 0.6 / 100))
    assert deviations[0, 1] == deviations[1, 1] == 0  # as expected; certain
    assert deviations[1, 0] == math.inf  # impossible
    assert CoVisibility(shares, 100, 2).deviations is None


def test_others_are_one_on_average_beside_a_patch():
    for strategy in (RandomMask(), DPPMask(), BlockMask()):
        pairs = CoVisibility(counted(strategy), 2000, 4)
        for patch in (0, 5):
            relative = pairs.beside(patch, pairs.shares)
            assert relative[patch].isnan()
            assert relative.nanmean().item() == pytest.approx(1)
    expected = 7 / 3 * pairs.shares[5, 2] / pairs.shares[5, 5]
    assert pairs.beside(5, pairs.shares)[2].item() == pytest.approx(expected.item())
    exact = exact_chances(RandomMask(), context(), 4)
    torch.testing.assert_close(pairs.beside(0, exact)[1:], torch.ones(7, dtype=torch.float64))


def test_a_patch_that_is_never_visible_has_no_company():
    pairs = CoVisibility(torch.zeros(4, 4, dtype=torch.float64), 10, 2)
    assert pairs.beside(1, pairs.shares).nan_to_num(-1.0).tolist() == [0.0, -1.0, 0.0, 0.0]


def test_copies_of_an_image_hold_what_is_read():
    tokens, images = torch.randn(1, 8, 5), torch.randn(1, 3, 16, 32)
    teacher = Tokens(torch.randn(1, 1, 5), torch.randn(1, 8, 5), torch.rand(1, 2, 8))
    one = MaskContext(images, GRID, tokens=tokens, teacher=teacher)
    three = repeat_image(one, 3)
    assert three.grid == GRID
    assert torch.equal(three.images, images.repeat(3, 1, 1, 1))
    assert torch.equal(three.tokens, tokens.repeat(3, 1, 1))
    assert torch.equal(three.teacher.patches, teacher.patches.repeat(3, 1, 1))
    assert torch.equal(three.teacher.attention, teacher.attention.repeat(3, 1, 1))
    assert repeat_image(MaskContext(images, GRID), 3).provides == {"images"}


def test_rarely_exceeded_bounds_the_largest_of_many():
    assert rarely_exceeded(1) == pytest.approx(2.5758, abs=1e-4)
    largest = torch.randn(20_000, 195, generator=fold_in(4)).abs().amax(1)
    assert (largest > rarely_exceeded(195)).double().mean().item() == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_masks": 1}, "num_masks must be at least 2 for a standard error, got 1"),
        ({"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\)"),
        ({"mask_ratio": 0.9}, "mask_ratio must leave at least 2 patches visible, got 0.9 and 1"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(UserError, match=words):
        co_visibility(context(), {"random": RandomMask()}, **options)
