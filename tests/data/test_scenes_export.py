"""Scenes written to disk and read by the loaders of real data: the same images, labels and objects."""

import json
from pathlib import Path

import pytest
import torch

from dppmask.data.base import Sample
from dppmask.data.clevr import CLEVR
from dppmask.data.coco import COCO
from dppmask.data.folder import ImageFolder
from dppmask.data.scenes import Scenes
from dppmask.data.scenes_export import export_scenes
from dppmask.errors import UserError

LOADERS = {"imagefolder": ImageFolder, "clevr": CLEVR, "coco": COCO}
CASES = [("imagefolder", "single"), ("clevr", "multi"), ("coco", "multi"), ("coco", "single")]


def small(task: str, **options) -> Scenes:
    return Scenes(**{"size": (32, 40), "task": task, "train_size": 36, "val_size": 4} | options)


def by_pixels(part) -> dict[bytes, Sample]:
    samples = [part[index] for index in range(len(part))]
    return {sample.image.numpy().tobytes(): sample for sample in samples}


@pytest.mark.parametrize(("format", "task"), CASES)
def test_loader_gives_the_same_samples(tmp_path, format, task):
    scenes = small(task)
    export_scenes(scenes, tmp_path / "out", format)
    options = {"objects": True} if format == "coco" else {}
    loaded = LOADERS[format](str(tmp_path / "out"), **options)
    for name in ("train", "val"):
        written, read = scenes.split(name), loaded.split(name)
        assert len(read) == len(written)
        found = by_pixels(read)  # class folders change the order
        for pixels, sample in by_pixels(written).items():
            if format == "imagefolder":
                assert found[pixels].label == sample.label
            elif task == "multi":
                assert torch.equal(found[pixels].labels, sample.labels)
            else:
                assert found[pixels].labels.nonzero().flatten().tolist() == [sample.label]
            if format == "coco":
                assert torch.equal(found[pixels].objects, sample.objects)


@pytest.mark.parametrize(("format", "task"), CASES[1:])
def test_order_and_names_are_those_of_scenes(tmp_path, format, task):
    scenes = small(task, train_size=5)
    export_scenes(scenes, tmp_path, format)
    loaded = LOADERS[format](str(tmp_path))
    assert loaded.class_names == scenes.class_names
    assert loaded.whole
    assert loaded.multi_label
    for index in range(5):
        assert torch.equal(loaded[index].image, scenes[index].image)
        assert loaded[index].sample_id == index


def test_class_folders_carry_label_and_name(tmp_path):
    scenes = small("single")
    export_scenes(scenes, tmp_path, "imagefolder")
    expected = [f"{label}_{name}" for label, name in enumerate(scenes.class_names)]
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == expected


def test_clevr_scenes_say_what_stands_where(tmp_path):
    scenes = small("multi", train_size=6, size=96)
    export_scenes(scenes, tmp_path, "clevr")
    content = json.loads((tmp_path / "scenes/CLEVR_train_scenes.json").read_text())
    assert content["info"]["split"] == "train"
    for index, scene in enumerate(content["scenes"]):
        assert scene["image_index"] == index
        assert scene["image_filename"] == f"CLEVR_train_{index:06d}.png"
        objects, masks = scene["objects"], scenes[index].objects
        for item, mask in zip(objects, masks, strict=True):
            x, y, _ = item["pixel_coords"]
            rows, columns = mask.nonzero().unbind(1)
            whole = mask.sum() >= 0.99 * masks.any(0)[rows.min() : rows.max() + 1, columns].sum()
            if item["shape"] == "sphere" and whole and mask.sum() > 100:
                assert abs(columns.double().mean() + 0.5 - x) < 3
                assert abs(rows.double().mean() + 0.5 - y) < 3
        right = scene["relationships"]["right"]
        for one, others in enumerate(right):
            assert all(
                objects[other]["pixel_coords"][0] > objects[one]["pixel_coords"][0] for other in others
            )
        for one, others in enumerate(scene["relationships"]["left"]):
            assert all(one in right[other] for other in others)
        depth = [item["3d_coords"][1] for item in objects]
        for one, others in enumerate(scene["relationships"]["behind"]):
            assert others == [i for i, d in enumerate(depth) if d > depth[one] + 0.08]


def test_coco_regions_have_area_and_box(tmp_path):
    scenes = small("multi", train_size=4)
    export_scenes(scenes, tmp_path, "coco")
    content = json.loads((tmp_path / "annotations/instances_train2014.json").read_text())
    assert [category["name"] for category in content["categories"]] == scenes.class_names
    ids = [annotation["id"] for annotation in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    masks = torch.cat([scenes[index].objects for index in range(4)])
    for annotation, mask in zip(content["annotations"], masks, strict=True):
        rows, columns = mask.nonzero().unbind(1)
        x, y, width, height = annotation["bbox"]
        assert annotation["area"] == mask.sum()
        assert (x, y) == (columns.min(), rows.min())
        assert (width, height) == (columns.max() - columns.min() + 1, rows.max() - rows.min() + 1)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.mark.parametrize(("format", "task"), CASES[:3])
def test_a_stopped_export_goes_on(tmp_path, monkeypatch, format, task):
    scenes = small(task, train_size=6)
    export_scenes(scenes, tmp_path / "whole", format)

    def stopping(indices: range, title: str):
        for index in indices:
            if index == 3:
                raise KeyboardInterrupt
            yield index

    with pytest.raises(KeyboardInterrupt):
        export_scenes(scenes, tmp_path / "out", format, track=stopping)
    before = files(tmp_path / "out")
    assert not any(name.endswith((".json",)) and "written_from" not in name for name in before)
    (tmp_path / "out" / next(iter(before))).parent.joinpath(".writing-1-left.png").write_bytes(b"half")
    export_scenes(scenes, tmp_path / "out", format)
    after, whole = files(tmp_path / "out"), files(tmp_path / "whole")
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in whole.items()
    }
    assert all(after[name] == kept for name, kept in before.items())  # not even touched


def test_a_full_disk_leaves_no_half_image(tmp_path, monkeypatch, full_disk):
    scenes = small("multi", size=96)
    with full_disk(2000), pytest.raises(UserError, match="the disk is full"):
        export_scenes(scenes, tmp_path, "clevr")
    assert set(files(tmp_path)) == {"written_from.json"}


def test_other_scenes_are_not_mixed_in(tmp_path):
    export_scenes(small("multi", train_size=1), tmp_path, "coco")
    with pytest.raises(UserError, match="was written with another seed, train_size; choose another folder"):
        export_scenes(small("multi", train_size=2, seed=1), tmp_path, "coco")
    with pytest.raises(UserError, match="was written with another format"):
        export_scenes(small("multi", train_size=1), tmp_path, "clevr")
    (tmp_path / "written_from.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        export_scenes(small("multi", train_size=1), tmp_path, "coco")


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no scenes"):
        export_scenes(small("multi"), tmp_path, "coco")
    with pytest.raises(UserError, match=r"notes\.txt is a file"):
        export_scenes(small("multi"), tmp_path / "notes.txt", "coco")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("format", "task", "message"),
    [
        ("clevr", "single", "format clevr needs scenes of task multi, got single"),
        ("imagefolder", "multi", "format imagefolder needs scenes of task single, got multi"),
        ("cocoa", "multi", "format 'cocoa' does not exist; did you mean coco"),
    ],
)
def test_formats_that_do_not_suit(tmp_path, format, task, message):
    with pytest.raises(UserError, match=message):
        export_scenes(small(task), tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_the_cache_changes_nothing(tmp_path):
    export_scenes(small("multi", train_size=2), tmp_path / "out", "clevr")
    cached = small("multi", train_size=2, cache_dir=str(tmp_path / "cache"))
    export_scenes(cached, tmp_path / "out", "clevr")
