"""The effect: small objects on photographs are lost by random masks and kept by DPP masks of pixels."""

from itertools import pairwise

import pytest
import torch

from dppmask.dpp import gaussian_kernel
from dppmask.masks import DPPMask, Mask, MaskContext, MaskStrategy, RandomMask, num_masked_for, take
from dppmask.masks.features import patch_pixels
from dppmask.rng import fold_in
from pasted_photographs import PastedObjects, pasted_objects

GRID = (14, 14)
PURGE_RATIOS = [0.0, 0.1, 0.3, 0.5, 0.7, 1.0]


@pytest.fixture(scope="module")
def photographs() -> PastedObjects:
    return pasted_objects(128)


def draw(photographs: PastedObjects, strategy: MaskStrategy, mask_ratio: float) -> Mask:
    context = MaskContext(photographs.images, GRID)
    return strategy(context, num_masked_for(mask_ratio, 196), generator=fold_in(0, 1))


def lost(photographs: PastedObjects, mask: Mask) -> torch.Tensor:
    """Which objects show less than 5 % of their pixels, bool ``[B]``."""
    return photographs.visible_share(mask.masked, GRID) < 0.05


def log_det(photographs: PastedObjects, mask: Mask) -> torch.Tensor:
    """Log-determinant of the kernel of the visible patches, ``[B]``; a little noise keeps it finite."""
    visible = take(patch_pixels(photographs.images, GRID), mask.ids_keep)  # [B, K, D]
    kernels = gaussian_kernel(visible).double()
    return torch.logdet(kernels + 1e-5 * torch.eye(visible.shape[1]))


@pytest.mark.parametrize("mask_ratio", [0.75, 0.9])
@pytest.mark.parametrize("purge_ratio", [0.0, 0.1])
def test_dpp_masks_lose_a_fifth_at_most(photographs, mask_ratio, purge_ratio):
    by_chance = lost(photographs, draw(photographs, RandomMask(), mask_ratio)).sum()
    by_dpp = lost(photographs, draw(photographs, DPPMask(purge_ratio, source="pixels"), mask_ratio)).sum()
    assert by_chance >= 0.15 * 128
    assert by_dpp <= by_chance / 5


def test_the_objects_are_small_and_whole(photographs):
    area = photographs.objects.float().mean((1, 2))
    assert area.min() > 0.005
    assert area.max() < 0.03
    none_hidden = torch.zeros(128, 196, dtype=torch.bool)
    assert (photographs.visible_share(none_hidden, GRID) == 1).all()
    assert (photographs.visible_share(~none_hidden, GRID) == 0).all()


def test_everything_moves_one_way_in_the_purge_ratio(photographs):
    """All share one noise, so neighbours are compared image by image: mean difference against its error."""
    masks = [draw(photographs, DPPMask(ratio, source="pixels"), 0.75) for ratio in PURGE_RATIOS]
    rising = {
        "picks": [-(mask.scores > 0).sum(1) for mask in masks],
        "log-det": [-log_det(photographs, mask) for mask in masks],
        "lost": [lost(photographs, mask) for mask in masks],
    }
    for name, values in rising.items():
        for low, high in pairwise(values):
            difference = high.double() - low.double()
            error = difference.std() / len(difference) ** 0.5
            assert difference.mean() >= -2 * error, name
        assert values[-1].double().mean() > values[0].double().mean(), name
