import numpy as np
import pytest
import torch
from masked_images import SIDE, Squares, write_squares

from dppmask.data.base import Sample
from dppmask.data.compositing import Box, paste, tile_box
from dppmask.data.cut_outs import LONELY, CutOutVariants, choose_foreground, crop
from dppmask.data.segmented_folder import SegmentedFolder
from dppmask.data.variants import MIXED, VARIANTS
from dppmask.errors import UserError
from dppmask.specs import build, describe

SQUARES = Squares()


def part(name, **options):
    return CutOutVariants(SQUARES, name, size=None, **options).split("val")


@pytest.mark.parametrize("name", MIXED)
def test_a_mixed_image_is_its_foreground_on_a_tiled_background_of_the_wanted_class(name):
    mixed = part(name)
    for index in range(len(mixed)):
        other, own = mixed.partner(index), SQUARES[index]
        assert other != index
        found = SQUARES[other].label
        assert (
            found == {"mixed_same": own.label, "mixed_next": (own.label + 1) % 3, "mixed_rand": found}[name]
        )
        background = SQUARES[other]
        tiled = tile_box(background.image, Box.around(background.objects[0]))
        assert (tiled == other).all()  # no trace of the other foreground
        assert torch.equal(mixed[index].image, paste(own.image, own.objects[0], tiled))
        assert mixed[index].label == own.label
        assert mixed.stem(index) == f"fg_{index:06d}_bg_{other:06d}"


def test_partners_depend_on_seed_and_image_alone():
    one, same, other = part("mixed_rand"), part("mixed_rand"), part("mixed_rand", seed=1)
    partners = [[each.partner(index) for index in range(12)] for each in (one, same, other)]
    assert partners[0] == partners[1] != partners[2]


def test_images_without_a_usable_foreground_are_left_out_and_counted():
    class Odd(Squares):
        def split(self, name):
            return Odd(self.count, self.num_classes, name)

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            masks = sample.objects.clone()
            label, stand_in = sample.label, index
            if index == 0:
                masks[:] = False
            elif index == 1:
                masks[:] = True
            elif index == 2:
                masks[:] = False
                masks[0, 0, 0] = True
            elif index == 3:
                stand_in = 4
            elif index == 4:
                label = None
            elif index == 5:
                label = 7
            return Sample(sample.image, label, objects=masks, sample_id=stand_in)

    source = CutOutVariants(Odd(), size=None)
    _, plan = source.plan("val")
    assert plan.kept == tuple(range(6, 12))
    assert plan.labels == tuple(index % 3 for index in range(6, 12))
    assert plan.left_out == {
        "without an object mask": 1,
        "with too large a box around the foreground": 1,
        "with too small a foreground": 1,
        "unreadable": 1,
        "without exactly one class": 1,
        LONELY: 1,
    }
    assert [source.split("val").label(i) for i in range(6)] == [0, 1, 2, 0, 1, 2]
    with pytest.raises(UserError, match=r"2 classes, got 0 \(left out: 12 with too small a foreground\)"):
        CutOutVariants(SQUARES, min_area=0.5, size=None).split("val")


def test_the_plan_is_made_once_for_all_variants():
    class Counted(Squares):
        reads = 0

        def split(self, name):
            return self

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    images = Counted()
    source = CutOutVariants(images)
    for name in VARIANTS:
        source.variant(name).split("val")
    assert images.reads == len(images)


def test_an_unsplit_source_opens_its_training_part_once_and_another_variant_its_own(monkeypatch):
    opened = []
    split = CutOutVariants.split
    monkeypatch.setattr(CutOutVariants, "split", lambda self, name: opened.append(name) or split(self, name))
    source = CutOutVariants(SQUARES, size=None)
    images = [source[index].image for index in range(len(source))]
    assert opened == ["train"]
    black = source.variant("only_fg")
    assert not torch.equal(black[5].image, images[5])
    assert torch.equal(black[5].image, CutOutVariants(SQUARES, "only_fg", size=None)[5].image)
    assert torch.equal(source[5].image, images[5])


def test_the_crop_keeps_image_and_mask_together():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[10:30, 20:40] = True
    image[:, mask] = 255
    pixels, inside = crop(image, mask, 20)
    assert pixels.shape == (3, 20, 20)
    assert torch.equal(inside, pixels[0] > 127)
    assert inside.sum() == 100
    moved = torch.zeros(40, 60, dtype=torch.bool)
    moved[10:30, 0:20] = True  # of which the crop, columns 10 to 49, keeps half
    assert crop(image, moved, 20)[1].sum() == 50


def test_foregrounds_that_the_crop_cuts_off_are_left_out():
    class Aside(Squares):
        def split(self, name):
            return self

        def __getitem__(self, index):
            mask = torch.zeros(20, 40, dtype=torch.bool)
            left = 5 if index % 2 else 12
            mask[5:12, left : left + 8] = True
            return Sample(
                torch.zeros(3, 20, 40, dtype=torch.uint8), index % 3, objects=mask[None], sample_id=index
            )

    _, plan = CutOutVariants(Aside(), size=20).plan("val")
    assert plan.kept == (0, 2, 4, 6, 8, 10)
    assert plan.left_out == {"with more than half of the foreground cropped off": 6}


def test_which_object_is_the_foreground():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, 0, :2] = masks[1, 1, :3] = masks[2, 2, :1] = True
    sample = Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), 5, objects=masks)
    mask, label = choose_foreground(sample, None, "largest")
    assert torch.equal(mask, masks[1])
    assert label == 5
    assert torch.equal(choose_foreground(sample, None, "union")[0], masks.any(0))
    mask, label = choose_foreground(sample, [8, 9, 9], "union")
    assert torch.equal(mask, masks[1:].any(0))
    assert label == 9
    several = Sample(sample.image, labels=torch.tensor([False, False, True]), objects=masks)
    assert choose_foreground(several, None, "largest")[1] == 2


def test_a_folder_with_masks_gives_the_same_cut_outs(tmp_path):
    write_squares(tmp_path / "images", tmp_path / "masks")
    write_squares(tmp_path / "images", tmp_path / "masks", part="train")
    folder = SegmentedFolder(str(tmp_path / "images"), str(tmp_path / "masks"))
    assert folder.class_names == SQUARES.class_names
    assert describe(build(describe(folder))) == describe(folder)
    images = CutOutVariants(folder, "only_fg", size=None).split("val")
    assert len(images) == 12
    for index in range(12):
        number = int(images.foreground(index).partition("_")[2])
        own = SQUARES[number]
        assert images.label(index) == own.label
        assert torch.equal(images[index].image, own.image * own.objects[0])


def test_masks_that_are_missing_or_of_another_size(tmp_path):
    write_squares(tmp_path / "images", tmp_path / "masks")
    write_squares(tmp_path / "images", tmp_path / "masks", part="train")
    source = SegmentedFolder(str(tmp_path / "images"), str(tmp_path / "masks"))
    (tmp_path / "masks/val/class 0/0.png").unlink()
    assert CutOutVariants(source, size=None).plan("val")[1].left_out == {"without an object mask": 1}
    wrong = tmp_path / "masks/val/class 0/0.npy"
    np.save(wrong, np.ones((SIDE, 5)))
    with pytest.raises(UserError, match=r"is 20 x 5 pixels, but its image .* is 20 x 20"):
        CutOutVariants(source, size=None).plan("val")
    wrong.write_bytes(b"no array")
    with pytest.raises(UserError, match="cannot read the mask"):
        CutOutVariants(source, size=None).plan("val")
    with pytest.raises(UserError, match="masks must be a folder"):
        SegmentedFolder(str(tmp_path / "images"), str(tmp_path / "none")).split("val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"objects": "all"}, "objects must be largest or union"),
        ({"min_area": 0.5, "max_box": 0.2}, "min_area and max_box"),
        ({"selected": "none"}, "variant 'none' does not exist"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        CutOutVariants(SQUARES, **options)
