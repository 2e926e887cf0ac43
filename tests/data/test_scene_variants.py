import math

import pytest
import torch

from dppmask.data.scene_textures import FAMILIES
from dppmask.data.scene_variants import SceneVariants
from dppmask.data.scenes import Scenes, compose
from dppmask.data.variants import MIXED, VARIANTS
from dppmask.errors import UserError
from dppmask.specs import build, describe

SCENES = Scenes(size=40, train_size=4, val_size=150, task="single")
SOURCE = SceneVariants(SCENES)


def part(name):
    return SOURCE.variant(name).split("val")


@pytest.mark.parametrize("name", VARIANTS)
def test_an_image_is_a_function_of_seed_and_index(name):
    again = SceneVariants(Scenes(size=40, train_size=4, val_size=150, task="single"), name).split("val")
    other = SceneVariants(Scenes(size=40, train_size=4, val_size=150, task="single", seed=1), name)
    [again[index] for index in (0, 1)]
    assert torch.equal(part(name)[3].image, again[3].image)
    assert not torch.equal(part(name)[3].image, other.split("val")[3].image)
    assert part(name)[3].label == part(name).label(3) == SCENES.split("val")[3].label


def test_the_original_is_the_scene_itself():
    assert torch.equal(part("original")[5].image, SCENES.split("val")[5].image)


@pytest.mark.parametrize("name", ["only_fg", *MIXED])
def test_opaque_pixels_of_the_foreground_are_the_same(name):
    opaque = SCENES.split("val").foreground(7).alpha > 0.999
    assert opaque.sum() > 50
    assert torch.equal(part(name)[7].image[:, opaque], part("original")[7].image[:, opaque])
    assert torch.equal(part(name).mask(7), SCENES.split("val")[7].objects[0])


def test_only_the_foreground_is_left_or_black():
    scenes = SCENES.split("val")
    alpha = scenes.foreground(7).alpha
    assert not part("only_fg")[7].image[:, alpha == 0].any()
    gone = part("no_fg")[7].image
    assert not gone[:, alpha > 0.999].any()
    assert torch.equal(gone[:, alpha == 0], scenes[7].image[:, alpha == 0])


def test_boxes_hide_every_pixel_of_the_object_and_nothing_beyond():
    alpha = SCENES.split("val").foreground(7).alpha
    rows, columns = (alpha > 0).any(1), (alpha > 0).any(0)
    box = rows[:, None] & columns
    original, black, tiled = (part(name)[7].image for name in ("original", "only_bg_b", "only_bg_t"))
    assert not black[:, box].any()
    assert torch.equal(black[:, ~box], original[:, ~box])
    assert torch.equal(tiled[:, ~box], original[:, ~box])
    assert not torch.equal(tiled[:, box], original[:, box])


@pytest.mark.parametrize("name", MIXED)
def test_a_mixed_image_has_the_floor_of_a_scene_of_the_wanted_class(name):
    scenes, mixed = SCENES.split("val"), part(name)
    for index in range(20):
        other = mixed.background_scene(index)
        own, found = mixed.label(index), mixed.label(other)
        assert other >= 10**6
        assert found == {"mixed_same": own, "mixed_next": (own + 1) % 9, "mixed_rand": found}[name]
        assert mixed.stem(index) == f"fg_{index:06d}_bg_{other}"
    expected = compose(scenes.foreground(4), scenes.background(mixed.background_scene(4)))
    assert torch.equal(mixed[4].image, expected)


def test_random_backgrounds_are_of_all_classes_alike():
    mixed = part("mixed_rand")
    counts = torch.bincount(
        torch.tensor([mixed.label(mixed.background_scene(i)) for i in range(len(mixed))]), minlength=9
    )
    expected = len(mixed) / 9
    assert ((counts - expected) ** 2 / expected).sum() < 26.1  # chi-squared, 8 degrees of freedom, p = 0.001


def test_background_only_is_what_the_family_of_the_floor_tells():
    families = list(FAMILIES)
    scenes = SCENES.split("val")
    right = [families.index(scenes.background_family(i)) == scenes.present(i)[0] for i in range(150)]
    assert SOURCE.background_only("val") == sum(right) / 150
    tolerance = 3.3 * math.sqrt(0.25 / 150)
    for name, share in {"original": 5 / 9, "mixed_same": 5 / 9, "mixed_rand": 1 / 9}.items():
        assert abs(SOURCE.variant(name).background_only("val") - share) < tolerance
    assert SOURCE.variant("only_fg").background_only("val") is None


def test_specs_and_wrong_options():
    source = SceneVariants(SCENES, "mixed_next")
    assert describe(build(describe(source))) == describe(source)
    assert len(source) == 4
    with pytest.raises(UserError, match=r"use --data\.task single"):
        SceneVariants(Scenes())
    with pytest.raises(UserError, match="did you mean mixed_rand"):
        SOURCE.variant("mixed_random")
    with pytest.raises(UserError, match="one part already"):
        part("original").split("val")
