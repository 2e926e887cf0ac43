"""Step times as a protocol."""

import pytest

from dppmask.bench.step_time import StepTime
from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation.run import evaluate

TINY = {"backbone": "test_vit", "image_size": 32, "patch_size": 8, "batch_size": 2}


def test_every_mask_has_its_seconds_and_its_ratio_to_random_masks():
    record = evaluate(None, StepTime(**TINY, repeats=1), Scenes(), device="cpu")
    assert record["metrics"] == {}
    times = record["timings"]
    assert times["RandomMask/over_random"] == 1.0
    for label in ("DPPMask", "KDPPMask"):
        assert times[f"{label}/over_random"] == pytest.approx(
            times[f"{label}/seconds"] / times["RandomMask/seconds"]
        )


@pytest.mark.parametrize("option", ["batch_size", "repeats"])
def test_numbers_below_one(option):
    with pytest.raises(UserError, match=f"{option} must be at least 1, got 0"):
        StepTime(**{**TINY, option: 0})
