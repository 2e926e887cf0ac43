"""COCO's files: which labels and objects an image has, and what damaged ones are answered with."""

import json
import logging
import pickle
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from PIL import Image

from dppmask import specs
from dppmask.data.coco import COCO
from dppmask.data.module import eval_batches
from dppmask.errors import UserError

HEIGHT, WIDTH = 6, 8
SQUARE = [[2, 1, 5, 1, 5, 4, 2, 4]]  # columns 2 to 4, rows 1 to 3
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "ape"}, {"id": 90, "name": "brush"}]


def runs(mask: torch.Tensor) -> list[int]:
    """Lengths of the runs of equal pixels, column by column, the first of zeros."""
    lengths, value = [0], 0
    for pixel in mask.T.flatten().int().tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


def square(top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def content() -> dict:
    """Four images: two objects; a crowd; nothing; an object in two parts."""
    images = [
        {"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH}
        for number in (40, 10, 20, 30)
    ]
    two_parts = [[0, 0, 2, 0, 2, 2, 0, 2], [5, 3, 8, 3, 8, 6, 5, 6]]
    crowd = {"size": [HEIGHT, WIDTH], "counts": runs(square(0, 0, 6))}
    loop = {"size": [HEIGHT, WIDTH], "counts": runs(square(2, 3, 2))}
    annotations = [
        {"id": 1, "image_id": 40, "category_id": 3, "iscrowd": 0, "segmentation": SQUARE},
        {"id": 2, "image_id": 30, "category_id": 90, "iscrowd": 0, "segmentation": two_parts},
        {"id": 3, "image_id": 10, "category_id": 7, "iscrowd": 1, "segmentation": crowd},
        {"id": 4, "image_id": 40, "category_id": 7, "iscrowd": 0, "segmentation": loop},
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": deepcopy(CATEGORIES)}


def write(root: Path, values: dict | str, *, name: str = "train2014") -> Path:
    """Annotations, and a grey image for each that they list."""
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / f"instances_{name}.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    for image in (content() if isinstance(values, str) else values).get("images", []):
        (root / name).mkdir(exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT), image["id"]).save(root / name / image["file_name"])
    return path


def test_labels_are_any_annotation_in_the_order_of_the_categories(tmp_path):
    write(tmp_path, content())
    source = COCO(str(tmp_path))
    assert source.class_names == ["cat", "ape", "brush"]
    assert [source[i].labels.tolist() for i in range(len(source))] == [
        [True, True, False],
        [True, False, False],  # a crowd counts
        [False, False, True],
    ]
    assert [int(source[i].image[0, 0, 0]) for i in range(3)] == [40, 10, 30]
    assert source[0].objects is None
    assert source.split("train").path(2).name == "30.png"


def test_images_without_annotations_stay_if_asked_for(tmp_path):
    write(tmp_path, content())
    source = COCO(str(tmp_path), keep_empty=True, objects=True)
    assert len(source) == 4
    assert not source[2].labels.any()
    assert source[2].objects.shape == (0, HEIGHT, WIDTH)
    assert len(source[3].objects) == 1


def test_objects_are_polygons_and_runs_but_no_crowds(tmp_path):
    write(tmp_path, content())
    source = COCO(str(tmp_path), objects=True)
    assert torch.equal(source[0].objects, torch.stack([square(1, 2, 3), square(2, 3, 2)]))
    assert source[1].objects.shape == (0, HEIGHT, WIDTH)
    assert torch.equal(source[2].objects, (square(0, 0, 2) | square(3, 5, 3))[None])
    assert [source.split("train").object_labels(i) for i in range(3)] == [[1, 0], [], [2]]


def test_official_files_of_both_years_and_any_other_place(tmp_path):
    write(tmp_path, content(), name="train2014")
    first = {key: content()[key][:1] for key in ("images", "annotations")}
    write(tmp_path, content() | first, name="val2017")
    assert len(COCO(str(tmp_path)).split("train")) == 3
    assert len(COCO(str(tmp_path), year=2017).split("val")) == 1
    mixed = COCO(
        str(tmp_path / "annotations"),
        train_annotations="instances_val2017.json",
        train_images=str(tmp_path / "val2017"),
        val_annotations="instances_train2014.json",
        val_images="../train2014",
    )
    assert (len(mixed.split("train")), len(mixed.split("val"))) == (1, 3)


def test_unreadable_images_are_replaced_named_once_and_counted(tmp_path, caplog):
    write(tmp_path, content())
    (tmp_path / "train2014/10.png").unlink()
    part = COCO(str(tmp_path)).split("train")
    with caplog.at_level(logging.WARNING):
        assert [part[index].sample_id for index in (1, 0, 1, 2)] == [2, 0, 2, 2]
    assert part[1].labels.tolist() == [False, False, True]  # those of the image that is shown
    assert part.num_unreadable == 1
    assert len(caplog.records) == 1
    assert "10.png" in caplog.text


def test_workers_and_copies_see_the_same(tmp_path):
    write(tmp_path, content())
    part = COCO(str(tmp_path), objects=True).split("train")
    clone = pickle.loads(pickle.dumps(part))
    assert all(torch.equal(clone[i].objects, part[i].objects) for i in range(3))

    def unchanged(image):
        return image.float(), torch.zeros(5, dtype=torch.int64)

    (batch,) = eval_batches(part, unchanged, batch_size=3, num_workers=2)
    assert torch.equal(batch.labels, torch.stack([part[i].labels for i in range(3)]))


def test_spec_round_trip(tmp_path):
    source = COCO(str(tmp_path), year=2017, objects=True)
    assert vars(specs.build(specs.describe(source))) == vars(source)


def changed(key: str, index: int, **values) -> dict:
    """The content with other values in one entry; None removes one."""
    entries = content()
    entry = entries[key][index] | values
    entries[key][index] = {name: value for name, value in entry.items() if value is not None}
    return entries


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (json.dumps(content())[:-90], r"is damaged or no JSON: .* at line 1, column \d+"),
        (changed("annotations", 0, category_id=4), "refers to id 4, .* not among its categories"),
        (changed("annotations", 0, image_id=99), "an annotation refers to id 99, .* not among its images"),
        (changed("annotations", 2, category_id=None), "an entry of 'annotations' lacks 'category_id'"),
        (changed("annotations", 2, image_id="40"), "an entry of 'annotations' has a wrong number"),
        (changed("images", 1, file_name="40.png"), "two images have the name '40.png'"),
        (changed("images", 1, id=40), "two images have the id 40"),
        (changed("images", 1, id="10"), "an entry of 'images' has id '10'"),
        (changed("images", 1, height=6.5), "an entry of 'images' has a wrong number"),
        (changed("categories", 1, id=7), "two categories have the id 7"),
        (content() | {"annotations": []}, "annotates no image; keep_empty true keeps them"),
        (content() | {"categories": []}, "lists no categories"),
        ({"annotations": [], "categories": CATEGORIES}, "lists no images"),
        (content() | {"images": [3]}, "an entry of 'images' lacks 'id': 3"),
    ],
)  # fmt: skip
def test_damaged_annotations_are_one_line(tmp_path, values, message):
    path = write(tmp_path, content())
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(UserError, match=message) as caught:
        COCO(str(tmp_path)).split("train")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ("oops", "cannot be drawn"),
        ([["a", "b", "c", "d", "e", "f"]], "cannot be drawn"),
        ([[1, 2, 3, 4, 5, 6, 7]], "an odd number of coordinates"),
        ({"size": [HEIGHT, 99], "counts": [6]}, r"its size is \[6, 99\], the image's \[6, 8\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [6, 1]}, "do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": "6"}, "do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": "6o"}, "end in the middle of a number"),
        ({"size": [HEIGHT, WIDTH], "counts": "6é"}, "is no character of packed run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": [-2, HEIGHT * WIDTH + 2]}, "do not add up"),
        ({"size": [HEIGHT, WIDTH]}, "counts"),
        (None, "segmentation"),
    ],
)  # fmt: skip
def test_damaged_outlines_are_one_line_when_they_are_drawn(tmp_path, segmentation, message):
    path = write(tmp_path, changed("annotations", 0, segmentation=segmentation))
    assert len(COCO(str(tmp_path))) == 3
    with pytest.raises(UserError, match=message) as caught:
        COCO(str(tmp_path), objects=True)[0]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_of_another_size_has_no_objects(tmp_path):
    write(tmp_path, changed("images", 0, width=WIDTH + 1))
    assert COCO(str(tmp_path))[0].labels is not None
    with pytest.raises(UserError, match=r"40\.png is 6 pixels high and 8 wide, but .* in 6 by 9"):
        COCO(str(tmp_path), objects=True)[0]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda root: COCO(root).split("val"), "instances_val2014.json cannot be read|no folder .*val2014"),
        (lambda root: COCO(root).split("test"), "split must be train or val, got 'test'"),
        (lambda root: COCO(f"{root}/nowhere").split("train"), "there is no folder .*nowhere/train2014"),
        (lambda root: COCO(root).split("train").split("train"), "is opened as one part already"),
        (lambda root: COCO(root, year=2015), "year must be 2014 or 2017, got 2015"),
    ],
)  # fmt: skip
def test_wrong_parts_and_places(tmp_path, ask, message):
    write(tmp_path, content())
    with pytest.raises(UserError, match=message):
        ask(str(tmp_path))
