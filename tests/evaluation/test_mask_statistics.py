from itertools import pairwise

import pytest
import torch
from coloured_images import Coloured, tiny_encoder

from dppmask.data.coco import COCO
from dppmask.data.scenes import Scenes
from dppmask.data.scenes_export import export_scenes
from dppmask.errors import UserError
from dppmask.evaluation import Compute, MaskStatistics, Subject
from dppmask.evaluation.strategies import label_of
from dppmask.masks import AttMask, BlockMask, Coarse, DPPMask, KDPPMask, RandomMask
from dppmask.specs import describe

STATISTICS = {"visible_share", "objects_lost", "log_det", "spread", "overlap"}


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=64, train_size=2, val_size=40)


@pytest.fixture(scope="module")
def ladder(scenes):
    """τ from fully greedy to random, on pixels, without a network."""
    masks = [DPPMask(purge_ratio, source="pixels") for purge_ratio in (0.0, 0.1, 0.3, 0.6, 1.0)]
    return MaskStatistics(masks, image_size=64, patch_size=8).run(Subject(), scenes)


def rows(result, statistic):
    return [row for row in result.tables["statistics"] if row["statistic"] == statistic]


def test_random_masks_are_as_they_must_be(ladder):
    for statistic in ("visible_share", "overlap", "spread"):
        value = ladder.metrics[f"RandomMask/{statistic}"]
        error = ladder.standard_errors[f"RandomMask/{statistic}"]
        assert abs(value - ladder.baselines["chance"][statistic]) < 4 * error
    assert ladder.baselines["chance"] == {"visible_share": 0.25, "overlap": 0.25, "spread": 1.0}
    assert set(ladder.baselines["random"]) == STATISTICS


def test_a_purge_ratio_of_1_is_random(ladder):
    for statistic in STATISTICS:
        assert (
            ladder.metrics[f"DPPMask(purge_ratio=1.0, source=pixels)/{statistic}"]
            == ladder.metrics[f"RandomMask/{statistic}"]
        )
        (row,) = (r for r in rows(ladder, statistic) if r["strategy"].startswith("DPPMask(purge_ratio=1.0"))
        assert row["minus_random"] == row["minus_random_standard_error"] == 0.0


@pytest.mark.parametrize(
    ("statistic", "rising"), [("greedy_picks", -1), ("log_det", -1), ("objects_lost", 1)]
)
def test_statistics_move_one_way_with_the_purge_ratio(ladder, statistic, rising):
    ordered = [row for row in rows(ladder, statistic) if row["strategy"].startswith("DPPMask")]
    steps = [rising * (b["value"] - a["value"]) for a, b in pairwise(ordered)]
    errors = [a["standard_error"] + b["standard_error"] for a, b in pairwise(ordered)]
    assert len(steps) == 4
    assert all(step >= -error for step, error in zip(steps, errors, strict=True))
    assert sum(steps) > 3 * max(errors)


def test_numbers_do_not_depend_on_who_else_takes_part(scenes, ladder):
    alone = MaskStatistics([DPPMask(0.3, source="pixels")], image_size=64, patch_size=8)
    result = alone.run(Subject(), scenes)
    for name, value in result.metrics.items():
        assert ladder.metrics[name] == value


def test_equal_calls_differ_in_timings_alone(scenes):
    def run(seed):
        return MaskStatistics(image_size=64, patch_size=16).run(Subject(), scenes, seed=seed)

    one, same, other = run(0), run(0), run(1)
    assert one.tables == same.tables
    assert one.metrics == same.metrics
    assert one.metrics != other.metrics
    assert all(milliseconds > 0 for milliseconds in one.timings.values())
    assert "DPPMask(source=pixels)/ms_per_batch_q80" in one.timings


def test_the_speed_knobs_change_nothing(scenes):
    def run(**compute):
        protocol = MaskStatistics(num_images=6, image_size=64, patch_size=16)
        return protocol.run(Subject(compute=Compute(**compute)), scenes).metrics

    assert run() == run(batch_size=5, num_workers=1)


def test_tokens_and_teacher_come_from_the_encoder(scenes):
    masks = [
        DPPMask(),
        DPPMask(source="teacher"),
        KDPPMask(source="tokens"),
        Coarse(DPPMask(), cell=2),
        BlockMask(),
        AttMask("hint"),
    ]
    encoder = tiny_encoder(image_size=64, patch_size=8)
    result = MaskStatistics(masks, num_images=10).run(Subject(encoder, compute=Compute(batch_size=4)), scenes)
    assert {row["strategy"] for row in result.tables["statistics"]} == {
        "RandomMask",
        "DPPMask",
        "DPPMask(source=teacher)",
        "KDPPMask",
        "Coarse(strategy=DPPMask)",
        "BlockMask",
        "AttMask(variant=hint)",
    }
    assert {row["strategy"] for row in rows(result, "greedy_picks")} == {"DPPMask", "DPPMask(source=teacher)"}
    assert result.metrics["DPPMask/log_det"] > result.metrics["KDPPMask/log_det"]
    assert result.metrics["KDPPMask/log_det"] > result.metrics["RandomMask/log_det"]


def test_images_without_objects_leave_out_what_needs_them():
    result = MaskStatistics([DPPMask()]).run(Subject(tiny_encoder()), Coloured())
    assert "visible_share and objects_lost are left out" in result.notes[0]
    assert not any("objects_lost" in name or "visible_share" in name for name in result.metrics)
    assert set(result.baselines["chance"]) == {"overlap", "spread"}


def test_one_visible_patch_has_no_spread(scenes):
    result = MaskStatistics([], mask_ratio=0.99, image_size=64, patch_size=32).run(Subject(), scenes)
    assert "RandomMask/spread" not in result.metrics
    assert result.metrics["RandomMask/log_det"] == pytest.approx(0.0, abs=1e-5)


def test_labels_tell_strategies_apart():
    assert label_of(RandomMask()) == "RandomMask"
    assert label_of(DPPMask(0.1, source="pixels")) == "DPPMask(purge_ratio=0.1, source=pixels)"
    assert label_of(Coarse(DPPMask(0.1), cell=4)) == "Coarse(strategy=DPPMask(purge_ratio=0.1), cell=4)"
    assert (
        describe(MaskStatistics([DPPMask(0.1)]))["init_args"]["masks"][0]["init_args"]["purge_ratio"] == 0.1
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_masks": 1}, "num_masks must be at least 2"),
        ({"num_images": 1}, "num_images must be at least 2"),
        ({"image_size": 60}, "image_size must be a multiple of patch_size 16, got 60"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"kernel_source": "token"}, "kernel_source must be one of tokens, pixels, teacher, got 'token'"),
        ({"num_shown": -1}, r"num_shown must be in \[0, 64\], the batch_size, got -1"),
        ({"num_shown": 9, "batch_size": 8}, r"num_shown must be in \[0, 8\], the batch_size, got 9"),
        ({"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\), got 1.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MaskStatistics(**options)


def test_strategies_that_cannot_run_here(scenes):
    with pytest.raises(UserError, match="DPPMask needs tokens, which only an encoder gives"):
        MaskStatistics([DPPMask()]).run(Subject(), scenes)
    with pytest.raises(UserError, match="the kernel of log_det needs teacher"):
        MaskStatistics([], kernel_source="teacher").run(Subject(), scenes)
    with pytest.raises(UserError, match="masks must all differ, got RandomMask, DPPMask, DPPMask"):
        MaskStatistics([DPPMask(), DPPMask()]).run(Subject(tiny_encoder()), scenes)
    with pytest.raises(UserError, match=r"not BlockMask\(exact=False\); use exact=True"):
        MaskStatistics([BlockMask(exact=False)]).run(Subject(tiny_encoder()), scenes)
    with pytest.raises(UserError, match="at least 2 images"):
        MaskStatistics().run(Subject(tiny_encoder()), Coloured(val_size=1))


def test_the_mask_noise_is_not_the_global_generator(scenes):
    before = torch.get_rng_state()
    MaskStatistics(num_images=4).run(Subject(tiny_encoder(image_size=64, patch_size=16)), scenes)
    assert torch.equal(torch.get_rng_state(), before)


def test_objects_of_files_are_lost_like_those_of_scenes(tmp_path):
    """COCO's outlines, read from disk, give the numbers of the scenes that were written there."""
    scenes = Scenes(size=64, train_size=1, val_size=6)
    export_scenes(scenes, tmp_path, "coco")
    protocol = MaskStatistics([DPPMask(source="pixels")], image_size=64, patch_size=8)
    ours, read = (protocol.run(Subject(), data) for data in (scenes, COCO(str(tmp_path), objects=True)))
    assert read.metrics == ours.metrics
    assert "objects_lost" in read.baselines["random"]
    assert "objects_lost" not in protocol.run(Subject(), COCO(str(tmp_path))).baselines["random"]
