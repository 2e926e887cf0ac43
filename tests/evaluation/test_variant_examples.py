"""Examples of variants in a record are the images of the data, foreground by foreground."""

import json

import pytest
import torch
from squares import CLASSES, Squares

from dppmask.data.background_builder import write_backgrounds
from dppmask.data.cut_outs import CutOutVariants
from dppmask.data.in9 import IN9
from dppmask.data.png import from_png
from dppmask.data.scene_variants import SceneVariants
from dppmask.data.scenes import Scenes
from dppmask.data.variants import VARIANTS
from dppmask.errors import UserError
from dppmask.evaluation import Subject, VariantExamples
from dppmask.specs import build, describe

SCENES = Scenes(size=32, train_size=2, val_size=6, task="single")


def test_the_same_foregrounds_stand_in_every_variant():
    result = VariantExamples(num_images=3).run(Subject(), SCENES)
    shown, source = result.tables["shown"], SceneVariants(SCENES)
    assert (result.metrics, len(shown)) == ({}, 3)
    for index, row in zip((0, 2, 4), shown, strict=True):
        assert row["class"] == SCENES.class_names[SCENES.split("val")[index].label]
        assert list(row["images"]) == list(VARIANTS)
        for name, png in row["images"].items():
            assert torch.equal(from_png(png), source.variant(name).split("val")[index].image)
    assert json.loads(json.dumps(shown)) == shown


def test_a_foreground_that_a_variant_lacks_is_none(tmp_path):
    write_backgrounds(CutOutVariants(Squares(), size=None), tmp_path, variants=["original", "only_fg"])
    first = sorted((tmp_path / "only_fg/val/00_dark").glob("*.JPEG"))[0]
    first.unlink()
    rows = VariantExamples(num_images=24).run(Subject(), IN9(str(tmp_path))).tables["shown"]
    assert [row["class"] for row in rows] == [name for name in CLASSES for _ in range(8)]
    assert [row["images"]["only_fg"] is None for row in rows] == [True] + [False] * 23
    assert all(row["images"]["original"] for row in rows)


def test_the_seed_chooses_backgrounds_of_cut_outs():
    def shown(seed):
        return VariantExamples(num_images=24).run(Subject(), Squares(), seed=seed).tables["shown"]

    def images(rows, variant):
        return [row["images"][variant] for row in rows]

    assert shown(0) == shown(0)
    assert images(shown(0), "mixed_rand") != images(shown(1), "mixed_rand")
    assert images(shown(0), "original") == images(shown(1), "original")


def test_options():
    assert describe(build(describe(VariantExamples(2, "train")))) == describe(VariantExamples(2, "train"))
    with pytest.raises(UserError, match="num_images must be at least 1, got 0"):
        VariantExamples(num_images=0)
