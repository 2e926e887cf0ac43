import math

import numpy as np
import pytest
import torch

from dppmask.evaluation.mask_measures import (
    PatchObjects,
    greedy_picks,
    log_det,
    overlap,
    pixels_on_patches,
    ratio,
    spread,
)
from dppmask.masks import DPPMask, Mask, MaskContext, RandomMask
from dppmask.rng import fold_in


def mask_of(*visible, num_patches):
    return Mask.from_ids_keep(torch.tensor(visible), num_patches=num_patches)


def test_pixels_on_patches_of_a_grid_that_is_not_square():
    objects = torch.zeros(2, 4, 9, dtype=torch.bool)
    objects[0, 1:3, 2:4] = True  # one pixel on each of the patches 0, 1 (above) and 3, 4 (below)
    objects[1, 3, 8] = True
    expected = torch.tensor([[1, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1.0]])
    assert torch.equal(pixels_on_patches(objects, (2, 3)), expected)


def test_visible_share_by_hand():
    first = torch.tensor([[3.0, 1, 0, 0], [0, 0, 0, 0]])  # its second object lies outside the image
    second = torch.tensor([[0.0, 0, 2, 2]])
    objects = PatchObjects.join([first, second, torch.zeros(0, 4)])
    shares = objects.visible_share(mask_of([0, 2], [0, 2], [0, 1], num_patches=4))
    assert shares.tolist() == [0.75, 0.5]
    assert objects.per_image(shares).tolist() == [0.75, 0.5, 0.0]


def test_log_det_equals_numpy():
    features = torch.randn(3, 8, 4, generator=fold_in(51))
    mask = mask_of([0, 3, 5], [1, 2, 7], [4, 5, 6], num_patches=8)
    unit = torch.nn.functional.normalize(features.double(), dim=-1).numpy()
    for row, ids in enumerate(mask.ids_keep.tolist()):
        x = unit[row, ids]
        kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / (2 * 0.5**2)) + 1e-6 * np.eye(3)
        expected = math.log(np.linalg.det(kernel))
        assert log_det(features, mask, bandwidth=0.5)[row].item() == pytest.approx(expected)


def test_log_det_of_repeated_patches_is_finite_and_low():
    flat = log_det(torch.ones(1, 8, 4), mask_of([0, 1, 2], num_patches=8))
    assert flat.item() == pytest.approx(math.log(3) + 2 * math.log(1e-6), abs=1e-3)


def test_spread_by_hand_and_of_random_masks():
    # Four patches in a row: all pairs are (3·1 + 2·2 + 1·3) / 6 = 10/6 apart.
    assert spread(mask_of([0, 3], num_patches=4), (1, 4)).item() == pytest.approx(3 / (10 / 6))
    assert spread(mask_of([0, 1, 2, 3], num_patches=4), (2, 2)).item() == pytest.approx(1.0)
    context = MaskContext.from_tokens(torch.zeros(400, 24, 1), (4, 6))
    spreads = spread(RandomMask()(context, 18, generator=fold_in(52)), (4, 6))
    assert abs(spreads.mean() - 1.0) < 4 * spreads.std() / 20
    corner = torch.tensor([[0, 1, 2, 6, 7, 8]])
    assert spread(mask_of(*corner.tolist(), num_patches=24), (4, 6)) < 0.7


def test_overlap_by_hand_and_of_random_masks():
    one, other = mask_of([0, 1, 2, 3], num_patches=8), mask_of([2, 3, 4, 5], num_patches=8)
    assert overlap(one, other).item() == overlap(other, one).item() == 0.5
    assert overlap(one, one).item() == 1.0
    context = MaskContext.from_tokens(torch.zeros(400, 24, 1))
    shares = overlap(*(RandomMask()(context, 18, generator=fold_in(53, i)) for i in range(2)))
    assert abs(shares.mean() - 6 / 24) < 4 * shares.std() / 20


def test_greedy_picks_of_dpp_masks():
    context = MaskContext.from_tokens(torch.randn(5, 24, 40, generator=fold_in(54)))
    for purge_ratio, expected in [(0.0, 6), (1.0, 1)]:
        gains = DPPMask(purge_ratio)(context, 18, generator=fold_in(55)).scores
        assert greedy_picks(gains).max() <= expected
    assert greedy_picks(torch.tensor([[0.0, 1.0, 0.2, 0.0]])).tolist() == [2.0]


def test_ratio_of_unit_counts_is_a_mean_with_its_standard_error():
    values = torch.randn(40, dtype=torch.float64, generator=fold_in(56))
    value, error = ratio(values, torch.ones(40, dtype=torch.float64))
    assert value == pytest.approx(values.mean().item())
    assert error == pytest.approx(values.std().item() / math.sqrt(40))


def test_error_of_a_ratio_is_its_spread_over_samples():
    """Images of 1 to 5 objects that are lost together or not at all: 400 samples of 60 images."""
    generator = fold_in(57)

    def sample():
        counts = torch.randint(1, 6, (60,), generator=generator).double()
        lost = (torch.rand(60, generator=generator) < 0.3).double()
        return lost * counts, counts

    drawn = torch.tensor([ratio(*sample()) for _ in range(400)])
    spread_of_values = drawn[:, 0].std()
    assert 0.88 < drawn[:, 1].mean() / spread_of_values < 1.12
    unclustered = math.sqrt(0.3 * 0.7 / (60 * 3))  # control: objects taken for independent
    assert unclustered / spread_of_values < 0.8
