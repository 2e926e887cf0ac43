"""Which files of a folder are images of which part and class, and what becomes of unreadable ones."""

import logging
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from dppmask.data.class_list import read_class_list
from dppmask.data.folder import ImageFolder, hold_out
from dppmask.data.module import TrainLoader, eval_batches
from dppmask.errors import UserError


def write(path: Path, grey: int = 128, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path)


def grey(image: Tensor) -> int:
    return int(image[0, 0, 0])


def unchanged(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.float(), torch.zeros(5, dtype=torch.int64)


def test_images_of_any_depth_in_the_order_of_their_names(tmp_path):
    for number, name in enumerate(["b.png", "a/z.png", "a/deep/er/y.png", "c.PNG"]):
        write(tmp_path / name, grey=number)
    source = ImageFolder(str(tmp_path)).split("train")
    assert [grey(source[i].image) for i in range(len(source))] == [2, 1, 0, 3]
    assert [source[i].sample_id for i in range(4)] == [0, 1, 2, 3]
    assert source.class_names is None
    assert source[0].label is None


def test_unsplit_source_is_its_training_part(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png"):
        write(tmp_path / name)
    source = ImageFolder(str(tmp_path))
    assert len(source) == 2
    assert source.class_names == ["cat", "dog"]
    assert [source[i].label for i in range(2)] == [0, 1]


def test_labels_are_the_first_folders(tmp_path):
    for name in (
        "train/dog/1.png",
        "train/cat/x/2.png",
        "train/cat/y/z/3.png",
        "train/eel/4.png",
        "val/eel/5.png",
    ):
        write(tmp_path / name)
    source = ImageFolder(str(tmp_path))
    train, val = source.split("train"), source.split("val")
    assert train.class_names == val.class_names == ["cat", "dog", "eel"]
    assert [train[i].label for i in range(4)] == [0, 0, 1, 2]
    assert val[0].label == 2


@pytest.mark.parametrize("names", [["one/1.png", "one/2.png"], ["one/1.png", "two/2.png", "3.png"]])
def test_no_labels_from_a_single_folder_or_loose_images(tmp_path, names):
    for name in names:
        write(tmp_path / name)
    assert ImageFolder(str(tmp_path)).split("train").class_names is None


def test_held_out_part_may_lack_labels(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "test/3.png"):
        write(tmp_path / name)
    source = ImageFolder(str(tmp_path))
    assert source.split("val").class_names is None
    assert source.split("train").class_names == ["a", "b"]


@pytest.mark.parametrize("folder", ["val", "validation", "test"])
def test_held_out_folder_is_not_trained_on(tmp_path, folder):
    for name in ("a/1.png", "b/2.png", f"{folder}/a/3.png"):
        write(tmp_path / name)
    source = ImageFolder(str(tmp_path))
    assert len(source.split("train")) == 2
    assert source.split("train").class_names == ["a", "b"]
    assert len(source.split("val")) == 1


def test_hold_out_divides_the_images(tmp_path):
    for number in range(20):
        write(tmp_path / "ab"[number % 2] / f"{number}.png", grey=number)
    source = ImageFolder(str(tmp_path), val_fraction=0.3)
    train, val = source.split("train"), source.split("val")
    shown = [{grey(part[i].image) for i in range(len(part))} for part in (train, val)]
    assert len(val) == 6
    assert shown[0] | shown[1] == set(range(20))
    assert not shown[0] & shown[1]
    assert train.class_names == val.class_names == ["a", "b"]


def test_hold_out_hardly_moves_when_images_are_added():
    names = [f"{number}.png" for number in range(1000)]
    before, after = hold_out(names, 0.1), hold_out([*names, *(f"new{i}.png" for i in range(100))], 0.1)
    assert len(before) == 100
    assert len(before - after) <= 10
    assert hold_out(names, 0.0) == frozenset()
    assert len(hold_out(["only.png"], 0.01)) == 1


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    for name in ("1.png", ".2.png", ".cache/3.png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._4.jpg").write_bytes(b"left by a Mac")
    assert len(ImageFolder(str(tmp_path)).split("train")) == 1


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere/1.png", grey=7)
    root = tmp_path / "root"
    write(root / "sub/2.png", grey=9)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "sub/up").symlink_to(root)
    source = ImageFolder(str(root)).split("train")
    assert sorted(grey(source[i].image) for i in range(len(source))) == [7, 9]


def break_files(folder: Path, numbers: list[int]) -> None:
    for number in numbers:
        path = folder / f"{number}.png"
        path.write_bytes(path.read_bytes()[:40])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Images 0 to 9, of which 3, 4 and 9 are damaged."""
    for number in range(10):
        write(tmp_path / f"{number}.png", grey=10 * number)
    break_files(tmp_path, [3, 4, 9])
    return tmp_path


def test_unreadable_image_gives_the_next_readable_one(broken):
    source = ImageFolder(str(broken)).split("train")
    ids = [source[index].sample_id for index in (9, 4, 3, 2, 3)]
    assert ids == [0, 5, 5, 2, 5]
    assert [grey(source[index].image) for index in (9, 4, 3)] == [0, 50, 50]
    fresh = ImageFolder(str(broken)).split("train")
    assert [fresh[index].sample_id for index in range(10)] == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]


def test_unreadable_image_is_named_once_and_counted(broken, caplog):
    source = ImageFolder(str(broken)).split("train")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for index in range(10):
                source[index]
    assert source.num_unreadable == 3
    named = [Path(record.getMessage().rpartition("file ")[2].strip("'")).name for record in caplog.records]
    assert named == ["3.png", "4.png", "9.png"]


def test_workers_count_unreadable_images_together(broken):
    source = ImageFolder(str(broken)).split("train")
    for batch_size in (3, 10):
        ids = torch.cat(
            [b.sample_ids for b in eval_batches(source, unchanged, batch_size=batch_size, num_workers=2)]
        )
        assert ids.tolist() == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]
    assert source.num_unreadable == 3


def test_batches_keep_their_shape_with_unreadable_images(broken):
    loader = TrainLoader(ImageFolder(str(broken)).split("train"), unchanged, batch_size=5, seed=0)
    assert [len(batch.images) for batch in loader] == [5, 5]


def test_opened_part_can_be_pickled(broken):
    source = ImageFolder(str(broken)).split("train")
    clone = pickle.loads(pickle.dumps(source))
    assert [clone[i].sample_id for i in range(10)] == [source[i].sample_id for i in range(10)]


def test_all_images_disappear(tmp_path):
    write(tmp_path / "1.png")
    source = ImageFolder(str(tmp_path)).split("train")
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match="none of the 1 images"):
        source[0]


def missing(root: Path) -> Path:
    return root / "nowhere"


def a_file(root: Path) -> Path:
    write(root / "1.png")
    return root / "1.png"


def empty(root: Path) -> Path:
    return root


def no_images(root: Path) -> Path:
    (root / "sub").mkdir()
    (root / "sub/notes.txt").write_text("nothing to see")
    return root


def all_unreadable(root: Path) -> Path:
    for number in range(3):
        write(root / f"{number}.png")
    break_files(root, [0, 1, 2])
    return root


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (missing, "does not exist"),
        (a_file, "is a file"),
        (empty, "holds no images"),
        (no_images, "holds no images"),
        (all_unreadable, r"none of the 3 images .*0\.png: cannot identify image file"),
    ],
)
def test_folder_without_images_is_an_error_at_start(tmp_path, prepare, message):
    root = prepare(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        ImageFolder(str(root)).split("train")
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_held_out_part_names_the_way_out(tmp_path):
    write(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"val_fraction 0\.1"):
        ImageFolder(str(tmp_path)).split("val")


def test_two_ways_to_hold_out_contradict(tmp_path):
    write(tmp_path / "train/1.png")
    write(tmp_path / "val/2.png")
    with pytest.raises(UserError, match=r"val_fraction is 0\.2, but"):
        ImageFolder(str(tmp_path), val_fraction=0.2).split("train")


def test_nothing_left_to_train_on(tmp_path):
    write(tmp_path / "1.png")
    with pytest.raises(UserError, match="no images left"):
        ImageFolder(str(tmp_path), val_fraction=0.5).split("train")


def test_held_out_class_that_was_not_trained_on(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "val/c/3.png"):
        write(tmp_path / name)
    with pytest.raises(UserError, match=r"class folders that the training images have not \(c\)"):
        ImageFolder(str(tmp_path)).split("val")


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_val_fraction_out_of_range(fraction):
    with pytest.raises(UserError, match="val_fraction must be in"):
        ImageFolder(".", val_fraction=fraction)


def listed(root: Path, text: str) -> str:
    path = root / "classes.list"
    path.write_text(text)
    return str(path)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Two parts of four classes; image k of a class shows its number plus k."""
    for part in ("train", "val"):
        for number, name in enumerate(["ant", "bee", "cat", "dog"]):
            write(tmp_path / part / name / "1.png", grey=10 * number)
            write(tmp_path / part / name / "deep/2.png", grey=10 * number + 1)
    return tmp_path


def test_listed_classes_are_the_only_ones_and_sorted(zoo):
    source = ImageFolder(str(zoo), classes=listed(zoo, "# two of them\ndog\n\n  bee  # the one that flies\n"))
    for part in (source.split("train"), source.split("val")):
        assert part.class_names == ["bee", "dog"]
        shown = [(grey(part[index].image), part[index].label) for index in range(len(part))]
        assert shown == [(10, 0), (11, 0), (30, 1), (31, 1)]


def test_listed_classes_are_held_out_from_too(zoo):
    source = ImageFolder(str(zoo / "train"), classes=listed(zoo, "cat\nant"), val_fraction=0.25)
    train, val = source.split("train"), source.split("val")
    assert (len(train), len(val)) == (3, 1)
    assert train.class_names == val.class_names == ["ant", "cat"]


def test_names_with_spaces_and_hashes(tmp_path):
    for name in ("02_wheeled vehicle", "c#", "other"):
        write(tmp_path / name / "1.png")
    source = ImageFolder(str(tmp_path), classes=listed(tmp_path, "c#\n02_wheeled vehicle\n"))
    assert source.class_names == ["02_wheeled vehicle", "c#"]


def test_a_link_to_above_does_not_bring_other_classes(zoo):
    (zoo / "train/ant/up").symlink_to(zoo / "train")
    assert len(ImageFolder(str(zoo), classes=listed(zoo, "ant\nbee"))) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ant\nbee\neel\nfox\n", r"train lacks 2 of the 4 listed class folders \(eel, fox\)"),
        ("ant\nbee\nant\n", "names the class ant twice"),
        ("ant\n", "must name at least 2 classes, but has 1"),
        ("# nothing\n", "must name at least 2 classes, but has 0"),
        ("ant\nbee/deep\n", "must hold plain folder names, one a line, but has 'bee/deep'"),
        ("ant\n..\n", r"must hold plain folder names, one a line, but has '\.\.'"),
    ],
)
def test_wrong_class_lists_are_one_line(zoo, text, message):
    with pytest.raises(UserError, match=message) as caught:
        ImageFolder(str(zoo), classes=listed(zoo, text)).split("train")
    assert "\n" not in str(caught.value)


def test_a_class_that_only_the_held_out_part_lacks(zoo):
    for path in (zoo / "val/bee").rglob("*.png"):
        path.unlink()
    source = ImageFolder(str(zoo), classes=listed(zoo, "ant\nbee"))
    assert len(source.split("train")) == 4
    with pytest.raises(UserError, match="val/bee holds no images"):
        source.split("val")


def test_lists_by_name(zoo):
    wnids = read_class_list("imagenet100")
    assert len(set(wnids)) == 100
    assert wnids == sorted(wnids)
    assert all(len(wnid) == 9 and wnid.startswith("n") and wnid[1:].isdigit() for wnid in wnids)
    assert {"n01558993", "n02869837", "n13040303"} <= set(wnids)  # robin, bonnet, stinkhorn
    with pytest.raises(UserError, match="train lacks 100 of the 100 listed class folders"):
        ImageFolder(str(zoo), classes="imagenet100").split("train")
    with pytest.raises(
        UserError, match="classes must be a file or a shipped list, but imagenet10 is neither"
    ):
        ImageFolder(str(zoo), classes="imagenet10").split("train")
