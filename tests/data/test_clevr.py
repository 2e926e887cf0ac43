"""CLEVR's files: 24 labels by shape and colour, and what damaged ones are answered with."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dppmask import specs
from dppmask.data.clevr import CLEVR
from dppmask.data.scenes import Scenes
from dppmask.errors import UserError


def item(shape: str, color: str) -> dict:
    return {"shape": shape, "color": color, "size": "large", "material": "metal"}


def scene(number: int, *objects: dict, split: str = "train", **changes) -> dict:
    name = f"CLEVR_{split}_{number:06d}.png"
    return {"image_index": number, "image_filename": name, "split": split, "objects": [*objects]} | changes


SCENES = [
    scene(0, item("cube", "gray"), item("cylinder", "yellow"), item("cube", "gray")),
    scene(1, item("sphere", "blue")),
    scene(2),
]


def write(root: Path, scenes: list, *, split: str = "train") -> Path:
    path = root / "scenes" / f"CLEVR_{split}_scenes.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"info": {"split": split}, "scenes": scenes}))
    folder = root / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(scenes)):
        Image.new("RGBA", (8, 6), (number, 0, 0, 255)).save(folder / f"CLEVR_{split}_{number:06d}.png")
    return path


def test_labels_are_shape_and_colour(tmp_path):
    write(tmp_path, SCENES)
    source = CLEVR(str(tmp_path))
    assert [source[i].labels.nonzero().flatten().tolist() for i in range(3)] == [[0, 23], [8 + 2], []]
    assert [int(source[i].image[0, 0, 0]) for i in range(3)] == [0, 1, 2]
    assert source.class_names == source.split("train").class_names == Scenes().class_names
    assert source.class_names[8 + 2] == "blue sphere"


def test_both_parts(tmp_path):
    write(tmp_path, SCENES)
    write(tmp_path, [scene(0, item("cube", "red"), split="val")], split="val")
    val = CLEVR(str(tmp_path)).split("val")
    assert len(val) == 1
    assert val[0].labels.nonzero().item() == 1
    assert val.path(0).name == "CLEVR_val_000000.png"
    assert val.listed_in.name == "CLEVR_val_scenes.json"


def test_a_missing_image_is_replaced(tmp_path):
    write(tmp_path, SCENES)
    (tmp_path / "images/train/CLEVR_train_000000.png").unlink()
    part = CLEVR(str(tmp_path)).split("train")
    assert part[0].sample_id == 1
    assert part[0].labels.nonzero().item() == 10
    assert part.num_unreadable == 1


def test_spec_round_trip():
    source = CLEVR("somewhere")
    assert vars(specs.build(specs.describe(source))) == vars(source)


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ([scene(0, item("cone", "red"))], "unknown 'cone' in .*; choose from cube, cylinder, sphere"),
        ([scene(0, item("cube", "grey"))], "unknown 'grey' in .*; did you mean gray"),
        ([scene(0, item("cube", []))], r"unknown \[\] in"),
        ([scene(0, {"shape": "cube"})], "an entry of 'objects' lacks 'color'"),
        ([scene(0, split="val")], "holds scenes of the part 'val', not train"),
        ([scene(0), scene(0)], "names the image CLEVR_train_000000.png twice"),
        ([scene(0, objects=3)], "must have a file name and a list of objects"),
        ([scene(0, image_filename=3)], "must have a file name and a list of objects"),
        ([{"split": "train"}], "an entry of 'scenes' lacks 'image_filename'"),
        ([], "lists no scenes"),
    ],
)
def test_damaged_scenes_are_one_line(tmp_path, scenes, message):
    path = write(tmp_path, scenes)
    with pytest.raises(UserError, match=message) as caught:
        CLEVR(str(tmp_path)).split("train")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_names_the_place(tmp_path):
    path = write(tmp_path, SCENES)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=r"CLEVR_train_scenes\.json is damaged .* at line 1, column \d+"):
        CLEVR(str(tmp_path)).split("train")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda root: CLEVR(root).split("val"), "no folder .*images/val with the val images of CLEVR"),
        (lambda root: CLEVR(root).split("test"), "split must be train or val, got 'test'"),
        (lambda root: CLEVR(f"{root}/nowhere")[0], "no folder .*nowhere"),
    ],
)
def test_wrong_parts_and_places(tmp_path, ask, message):
    write(tmp_path, SCENES)
    with pytest.raises(UserError, match=message):
        ask(str(tmp_path))
