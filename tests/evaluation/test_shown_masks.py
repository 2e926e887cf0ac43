"""What a record shows of masks: the images as they were, and the masks that were measured."""

import json

import pytest
import torch
from coloured_images import tiny_encoder

from dppmask.data.png import from_png
from dppmask.data.scenes import Scenes
from dppmask.evaluation import MaskStatistics, Subject
from dppmask.evaluation.features import eval_transform_of
from dppmask.masks import DPPMask, KDPPMask, MaskContext, RandomMask
from dppmask.rng import fold_in

MASKS = [DPPMask(0.1, source="pixels"), KDPPMask(source="pixels")]
OPTIONS = {"mask_ratio": 0.5, "image_size": 32, "patch_size": 8, "batch_size": 4}


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=32, train_size=1, val_size=6)


@pytest.fixture(scope="module")
def result(scenes):
    return MaskStatistics(MASKS, num_shown=3, **OPTIONS).run(Subject(), scenes, seed=5)


def test_images_come_back_to_the_last_bit(result, scenes):
    shown = result.tables["shown"]
    assert len(shown) == 3
    for index, row in enumerate(shown):
        assert torch.equal(from_png(row["image"]), scenes.split("val")[index].image)
        assert row["grid"] == [4, 4]
    assert json.loads(json.dumps(shown)) == shown


def test_masks_are_those_of_the_same_noise(result, scenes):
    transform = eval_transform_of(tiny_encoder(image_size=32, patch_size=8), scenes)
    part = scenes.split("val")
    images = torch.stack([transform(part[index].image)[0] for index in range(4)])  # the first batch
    for number, strategy in enumerate([RandomMask(), *MASKS]):
        mask = strategy(MaskContext(images, (4, 4)), 8, generator=fold_in(5, 0, 0))
        for row, shown in enumerate(result.tables["shown"]):
            found = shown["masks"][number]
            assert found["masked"] == mask.ids_mask[row].tolist()
            if mask.scores is None:
                assert found["gains"] is None
            else:
                assert found["gains"] == pytest.approx(mask.scores[row].tolist(), rel=1e-4)
                assert sum(gain > 0 for gain in found["gains"]) > 0
    labels = [found["strategy"] for found in result.tables["shown"][0]["masks"]]
    assert labels == [row["strategy"] for row in result.tables["strategies"]]


def test_numbers_do_not_depend_on_what_is_shown(result, scenes):
    plain = MaskStatistics(MASKS, **OPTIONS).run(Subject(), scenes, seed=5)
    assert "shown" not in plain.tables
    assert plain.metrics == result.metrics


def test_an_encoder_of_another_normalisation_shows_the_same_image(scenes):
    encoder = tiny_encoder(image_size=32, patch_size=8)
    encoder.mean, encoder.std = (0.3, 0.2, 0.1), (0.5, 0.6, 0.7)
    result = MaskStatistics([DPPMask()], num_shown=1, batch_size=2).run(Subject(encoder), scenes)
    (row,) = result.tables["shown"]
    assert torch.equal(from_png(row["image"]), scenes.split("val")[0].image)
