import logging

import pytest
import torch

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.figures.mask_gallery import (
    GREEDY,
    draw_gallery,
    draw_masks,
    make_gallery,
    spread_images,
    title_of,
)
from dppmask.masks import Coarse, DPPMask, KDPPMask, RandomMask
from dppmask.models.checkpoint import save_encoder

GRID = (3, 4)
STRATEGIES = [RandomMask(), DPPMask(0.0, source="pixels"), DPPMask(0.9, source="pixels")]


def scenes(**changes):
    return Scenes(**{"size": 32, "train_size": 6, "val_size": 3} | changes)


@pytest.mark.parametrize(
    ("strategy", "title"),
    [
        (RandomMask(), "RandomMask"),
        (DPPMask(), "DPPMask τ=0.3"),
        (DPPMask(0.05), "DPPMask τ=0.05"),
        (DPPMask(0.0, source="pixels", bandwidth=2.0), "DPPMask τ=0\nsource=pixels\nbandwidth=2.0"),
        (KDPPMask(), "KDPPMask"),
        (Coarse(DPPMask(0.1), cell=4), "Coarse\nof DPPMask τ=0.1\ncell=4"),
    ],
)
def test_titles_say_the_class_and_what_is_not_default(strategy, title):
    assert title_of(strategy) == title


def test_every_strategy_sees_the_same_noise_and_images(images, pixels):
    fully_random = DPPMask(1.0, source="pixels")
    gallery = make_gallery(images, [RandomMask(), fully_random], grid=GRID, mask_ratio=0.5)
    random, dpp = gallery.masks.values()
    assert torch.equal(random.masked, dpp.masked)
    assert torch.equal(gallery.images, pixels)


def test_the_seed_decides_the_masks(images):
    masks = [make_gallery(images, STRATEGIES, grid=GRID, seed=seed).masks for seed in (0, 0, 1)]
    for same, again, other in zip(*(m.values() for m in masks), strict=True):
        assert torch.equal(same.masked, again.masked)
        assert not torch.equal(same.masked, other.masked)


def test_tokens_come_from_the_encoder_which_is_left_as_it_was(images, make_mae):
    encoder = make_mae().encoder.train()
    teacher = DPPMask(source="teacher")
    gallery = make_gallery(images, [DPPMask(), teacher], grid=GRID, encoder=encoder)
    assert [mask.num_masked for mask in gallery.masks.values()] == [9, 9]
    assert encoder.training
    with pytest.raises(ValueError, match="DPPMask needs tokens"):
        make_gallery(images, [DPPMask()], grid=GRID)


def test_equal_strategies_are_refused(images):
    with pytest.raises(UserError, match="must all differ"):
        make_gallery(images, [DPPMask(source="pixels"), DPPMask(source="pixels")], grid=GRID)


def test_greedy_picks_are_outlined_and_hidden_patches_covered(images, boxes):
    gallery = make_gallery(images, STRATEGIES, grid=GRID, mask_ratio=0.5)
    figure = draw_gallery(gallery)
    axes = [figure.axes[4 * row : 4 * row + 4] for row in range(3)]
    assert [place.get_title() for place in axes[0]] == ["original", *gallery.masks]
    for row in range(3):
        assert boxes(axes[row][0]) == boxes(axes[row][1]) == {}  # original and random
        for column, mask in enumerate(gallery.masks.values(), start=1):
            shown = torch.from_numpy(axes[row][column].images[0].get_array().copy())
            visible = ~mask.masked[row].unflatten(0, GRID)
            visible = visible.repeat_interleave(8, 0).repeat_interleave(8, 1)
            original = gallery.images[row].permute(1, 2, 0)
            assert torch.equal(shown[visible], original[visible])
            assert not torch.equal(shown[~visible], original[~visible])
            if mask.scores is not None:
                picks = (mask.scores[row] > 0).nonzero().flatten().tolist()
                assert boxes(axes[row][column]) == {"greedy picks": [divmod(i, 4) for i in picks]}
    greedy, filled = (int((mask.scores > 0).sum()) for mask in list(gallery.masks.values())[1:])
    assert greedy == 18 > filled  # six visible in each of three images


def test_the_counts_and_the_legend_say_what_is_drawn(images):
    figure = draw_gallery(make_gallery(images, STRATEGIES, grid=GRID, mask_ratio=0.5, note="a note"))
    below = [place.get_xlabel() for place in figure.axes[-4:]]
    assert below[1:3] == ["6 of 12 visible", "6 of 6 greedy"]
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "a note"
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["visible, picked greedily", "visible otherwise", "hidden"]
    assert legend.get_patches()[0].get_edgecolor()[:3] == pytest.approx(
        [int(GREEDY[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    )


def test_images_are_spread_over_the_source(make_mae):
    encoder, source = make_mae().encoder, scenes(size=(36, 48)).split("train")
    spread = spread_images(source, 3, encoder)
    each = spread_images(source, 100, encoder)  # more than there are
    assert each.shape == (6, 3, 24, 32)
    assert torch.equal(spread, each[[0, 2, 4]])


def test_the_command_needs_no_encoder_for_pixels(tmp_path, caplog):
    out = tmp_path / "gallery.svg"
    options = {"image_size": 32, "patch_size": 8, "num_images": 2, "backbone": "test_vit"}
    assert draw_masks(data=scenes(), mask=STRATEGIES, out=str(out), **options) == out
    assert "DPPMask" not in caplog.text
    assert out.read_text().startswith("<?xml")


def test_the_command_says_that_tokens_are_untrained(tmp_path, caplog):
    options = {"image_size": 32, "patch_size": 8, "num_images": 1, "backbone": "test_vit"}
    with caplog.at_level(logging.WARNING):
        draw_masks(data=scenes(), mask=[DPPMask()], out=str(tmp_path / "a.png"), **options)
    assert "freshly initialised test_vit" in caplog.text


def test_the_command_reads_the_tokens_of_a_run(tmp_path, make_mae, monkeypatch):
    encoder = make_mae(seed=3).encoder
    save_encoder(encoder, tmp_path / "run" / "encoder")
    galleries = []
    monkeypatch.setattr(
        "dppmask.figures.mask_gallery.draw_gallery", lambda g: (galleries.append(g), draw_gallery(g))[1]
    )
    source = scenes(size=(36, 48))
    draw_masks(
        data=source, mask=[DPPMask(0.1)], run=str(tmp_path / "run"), out=str(tmp_path / "a.png"), num_images=3
    )
    expected = make_gallery(
        spread_images(source.split("train"), 3, encoder), [DPPMask(0.1)], grid=GRID, encoder=encoder
    )
    (drawn,) = galleries
    assert torch.equal(drawn.masks["DPPMask τ=0.1"].masked, expected.masks["DPPMask τ=0.1"].masked)
    assert drawn.note == f"tokens of {tmp_path / 'run'}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "a.gif"}, "out must end with"),
        ({"out": "nowhere/a.png"}, "there is no folder"),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
        ({"mask_ratio": 1.5}, r"mask_ratio must be in \(0, 1\), got 1.5"),
        ({"image_size": 30}, "image_size must be"),
        ({"run": "nowhere"}, "nowhere is neither a run"),
        ({"run": "x", "backbone": "test_vit"}, "backbone and patch_size are those of the run x"),
        ({"mask": [RandomMask(), RandomMask()]}, "must all differ"),
        ({"split": "test"}, "split must be"),
    ],
)
def test_wrong_options_of_the_command(tmp_path, options, words):
    defaults = {"image_size": 32, "patch_size": 8, "backbone": "test_vit", "mask": [RandomMask()]}
    if options.get("run") == "nowhere":
        defaults |= {"patch_size": None, "backbone": None}
    options = {"out": "a.png"} | options
    with pytest.raises(UserError, match=words) as refused:
        draw_masks(data=scenes(), **defaults | options | {"out": str(tmp_path / options["out"])})
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
