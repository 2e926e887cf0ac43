import json

import numpy as np
import pytest
import torch
from masked_images import Squares, write_squares
from PIL import Image

from dppmask import cli
from dppmask.data import background_builder
from dppmask.data.background_builder import variant_source, write_backgrounds
from dppmask.data.cut_outs import CutOutVariants
from dppmask.data.in9 import IN9, class_folders, class_names
from dppmask.data.in9_classes import FOLDERS
from dppmask.data.scenes import Scenes
from dppmask.data.variants import VARIANTS
from dppmask.errors import UserError
from dppmask.specs import build, describe

SOURCE = CutOutVariants(Squares(), size=None)
SCENES = Scenes(size=32, train_size=3, val_size=18, task="single")


@pytest.fixture
def folder(tmp_path):
    write_backgrounds(SOURCE, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("source", [SOURCE, variant_source(SCENES)], ids=["cut out", "rendered"])
def test_what_is_written_is_read_again(source, tmp_path):
    record = write_backgrounds(source, tmp_path)
    data = IN9(str(tmp_path))
    assert record["images"] == len(source.split("val"))
    assert data.variants("val") == tuple(VARIANTS) == tuple(record["variants"])
    present = {source.class_names[source.split("val").label(i)] for i in range(record["images"])}
    assert data.class_names == [name for name in source.class_names if name in present]
    for name in VARIANTS:
        written, read = source.variant(name).split("val"), data.variant(name).split("val")
        places = {read.foreground(i): i for i in range(len(read))}
        assert len(read) == len(places) == len(written)
        for index in range(0, len(written), 5):
            place = places[written.foreground(index)]
            assert read.background(place) == written.background(index)
            assert read.class_names[read.label(place)] == written.class_names[written.label(index)]
            assert read[place].label == read.label(place)
            assert torch.equal(read.mask(place), written.mask(index))
            difference = read[place].image.int() - written[index].image.int()
            assert difference.abs().float().mean() < 6  # JPEG


def test_a_build_that_was_stopped_goes_on(tmp_path, monkeypatch):
    write_backgrounds(SOURCE, tmp_path / "whole")
    calls = 0
    whole = background_builder.jpeg

    def stop(image):
        nonlocal calls
        calls += 1
        if calls == 30:
            raise KeyboardInterrupt
        return whole(image)

    monkeypatch.setattr(background_builder, "jpeg", stop)
    with pytest.raises(KeyboardInterrupt):
        write_backgrounds(SOURCE, tmp_path / "stopped")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").rglob("*.JPEG")}
    assert len(before) == 29
    leftover = next(iter(before)).with_name(".writing-1-half.JPEG")
    leftover.write_bytes(b"half")
    write_backgrounds(SOURCE, tmp_path / "stopped")
    assert calls == 30 + 8 * 12 - 29
    assert not leftover.exists()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    contents = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "whole", tmp_path / "stopped")
    ]
    assert contents[0] == contents[1]


def test_a_folder_of_other_data_is_left_alone(folder):
    with pytest.raises(UserError, match="holds the val part of other data or options"):
        write_backgrounds(CutOutVariants(Squares(), size=None, seed=1), folder)
    record = write_backgrounds(SOURCE.variant("mixed_same"), folder, split="train", variants=["original"])
    assert record["variants"] == ["original"]
    assert set(json.loads((folder / "backgrounds.json").read_text())) == {"train", "val"}
    assert len(IN9(str(folder)).split("train")) == 12
    (folder / "backgrounds.json").write_text("{")
    with pytest.raises(UserError, match="choose another folder"):
        write_backgrounds(SOURCE, folder)


def test_images_left_out_are_counted_in_the_record(tmp_path):
    record = write_backgrounds(
        CutOutVariants(Squares(count=10, num_classes=8), size=None), tmp_path, variants=[]
    )
    assert record["left_out"] == {"the only one of its class": 6}
    assert record["classes"] == {"00_class 0": 2, "01_class 1": 2}


def test_the_command_builds_from_a_folder_with_masks(tmp_path, capsys):
    images, masks, out = (tmp_path / name for name in ("images", "masks", "out"))
    write_squares(images, masks)
    write_squares(images, masks, part="train")
    line = f"backgrounds --data SegmentedFolder --data.root {images} --data.masks {masks} --out {out}"
    assert cli.main(f"{line} --size 16 --variants [original,mixed_rand]".split()) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["images"] == 12
    assert IN9(str(out)).variants("val") == ("original", "mixed_rand")
    assert IN9(str(out)).split("val")[0].image.shape == (3, 16, 16)
    assert cli.main(f"{line} --variants+ none".split()) == 2
    assert "variant 'none' does not exist" in capsys.readouterr().err


def test_folders_of_the_release_are_labels_in_their_order(tmp_path):
    for name in FOLDERS:
        (tmp_path / "original/val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "original/val" / name / "n01_1.JPEG")
    data = IN9(str(tmp_path))
    assert data.class_names[2] == "wheeled vehicle"
    part = data.split("val")
    assert [part.label(i) for i in range(9)] == [part[i].label for i in range(9)] == list(range(9))
    (tmp_path / "original/val/08_fish/n01_1.JPEG").unlink()
    with pytest.raises(UserError, match="has no images in '08_fish'"):
        data.split("val")
    (tmp_path / "original/val/08_fish").rmdir()
    with pytest.raises(UserError, match="lacks the class folders '08_fish'"):
        data.split("val")


def test_names_and_folders_of_classes():
    names = ["dog", "a/b", *(f"c{i}" for i in range(99))]
    assert class_folders(names)[:2] == ["000_dog", "001_a-b"]
    assert sorted(class_folders(names)) == class_folders(names)
    assert class_names(["00_dog", "01_dog"]) == ["00_dog", "01_dog"]
    assert class_names(["00_dog", "01_"]) == ["00_dog", "01_"]


def test_missing_variants_and_classes_are_one_line(folder):
    data = IN9(str(folder))
    for path in (folder / "no_fg/val/00_class 0").iterdir():
        path.unlink()
    (folder / "no_fg/val/00_class 0").rmdir()
    with pytest.raises(UserError, match="no_fg/val lacks the class folders '00_class 0'"):
        data.variant("no_fg").split("val")
    (folder / "only_fg/val/more").mkdir()
    with pytest.raises(UserError, match="other variants have not: 'more'"):
        data.variant("only_fg").split("val")
    with pytest.raises(UserError, match=r"none of the folders original/train"):
        data.split("train")
    with pytest.raises(UserError, match="folder of the unpacked release"):
        IN9(str(folder / "none")).split("val")
    with pytest.raises(UserError, match="did you mean mixed_rand"):
        IN9(str(folder), selected="mixed_random")
    assert describe(build(describe(data))) == describe(data)


def test_masks_that_are_missing_damaged_or_of_another_size(folder):
    part = IN9(str(folder)).split("val")
    path = folder / "fg_mask/val/00_class 0/000000.npy"
    assert part.foreground(0) == "000000"
    np.save(path, np.ones((20, 19)))
    with pytest.raises(UserError, match=r"is 20 x 19 pixels, but its image .* is 20 x 20"):
        part.mask(0)
    np.save(path, np.ones((20, 20, 3)))
    with pytest.raises(UserError, match=r"must be numbers \[H, W\], got float64 \[20, 20, 3\]"):
        part.mask(0)
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="cannot read the mask"):
        part.mask(0)
    path.unlink()
    with pytest.raises(UserError, match="there is no mask"):
        part.mask(0)


def test_an_unreadable_image_is_counted(folder):
    (folder / "original/val/00_class 0/000000.JPEG").write_bytes(b"no picture")
    part = IN9(str(folder)).split("val")
    assert part[0].sample_id == 1
    assert part.num_unreadable == 1
