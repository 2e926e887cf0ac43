"""Data sets in every format that the Hugging Face library reads, against the same images in a folder."""

import logging
import pickle

import pytest
import torch

pytest.importorskip("datasets")

from hub_files import (
    CLASSES,
    numbers,
    odd_pictures,
    opened,
    picture,
    same_images,
    save,
    table,
    write_folder,
    write_parquet,
    write_tar,
)

from dppmask import specs
from dppmask.data.folder import ImageFolder
from dppmask.data.hub import HubDataset
from dppmask.data.module import eval_batches
from dppmask.data.transforms import eval_transform
from dppmask.errors import UserError

LABELS = [0, 0, 0, 1, 1]


def parquet_folder(root, files):
    return write_parquet(root / "data", table(files[:3], LABELS[:3]), table(files[3:], LABELS[3:])), {}


def parquet_file(root, files):
    folder = write_parquet(root / "data", table(files, LABELS))
    return folder / "train-00000-of-00001.parquet", {}


def parquet_pattern(root, files):
    return parquet_folder(root, files)[0] / "*.parquet", {}


def image_folder(root, files):
    return write_folder(root / "data", files, LABELS), {}


def saved_splits(root, files):
    return save(root / "data", train=table(files, LABELS)), {}


def saved_table(root, files):
    table(files, LABELS).save_to_disk(root / "data")
    return root / "data", {}


def tar_samples(files):
    return [{"img": file, "cls": b"%d\n" % label} for file, label in zip(files, LABELS, strict=True)]


def tar_file(root, files):
    options = {"image_column": "img", "label_column": "cls"}
    return write_tar(root / "data/train.tar", tar_samples(files)), options


def tar_folder(root, files):
    write_tar(root / "data/0.tar", tar_samples(files)[:3])
    write_tar(root / "data/1.tar", tar_samples(files)[3:])
    return root / "data", {"image_column": "img", "label_column": "cls"}


SHARDS = [parquet_folder, parquet_file, parquet_pattern, tar_file, tar_folder]
FORMATS = [(make, False) for make in (*SHARDS, image_folder, saved_splits, saved_table)]
FORMATS += [(make, True) for make in SHARDS]


@pytest.mark.parametrize(
    ("make", "streaming"), FORMATS, ids=[f"{make.__name__}{'-streamed' * s}" for make, s in FORMATS]
)
def test_every_format_gives_the_images_and_labels_of_the_folder(tmp_path, make, streaming):
    files = odd_pictures()
    expected = ImageFolder(str(write_folder(tmp_path / "reference", files, LABELS))).split("train")
    path, options = make(tmp_path, files)
    source = opened(path, streaming=streaming, **options)
    part = source.split("train")
    assert len(part) == len(expected) == 5
    assert same_images(part, expected)
    assert [part[i].label for i in range(5)] == [expected[i].label for i in range(5)] == LABELS
    assert part.class_names == (["0", "1"] if "label_column" in options else CLASSES)
    assert not part.multi_label
    assert len(source) == 5
    assert source.class_names == part.class_names
    assert torch.equal(source[4].image, part[4].image)


@pytest.fixture
def ten(tmp_path):
    """Pictures 0 to 9, of two classes in turn."""
    return write_parquet(
        tmp_path / "data", table([picture(i) for i in range(10)], [i % 2 for i in range(10)])
    )


def test_held_out_split(tmp_path, ten):
    write_parquet(ten, table([picture(i) for i in (20, 21)], [1, 0]), split="test")
    assert numbers(opened(ten).split("train")) == list(range(10))
    held_out = opened(ten, val_split="test").split("val")
    assert numbers(held_out) == [20, 21]
    assert held_out.class_names == CLASSES
    with pytest.raises(UserError, match=r"no split validation .*name one by val_split \(train, test\)"):
        opened(ten).split("val")
    with pytest.raises(UserError, match=r"val_fraction is 0\.2, but split test holds images out already"):
        opened(ten, val_split="test", val_fraction=0.2).split("train")


@pytest.mark.parametrize("streaming", [False, True])
def test_held_out_fraction(ten, streaming):
    source = opened(ten, val_fraction=0.3, streaming=streaming)
    train, val = source.split("train"), source.split("val")
    assert len(val) == 3
    assert sorted(numbers(train) + numbers(val)) == list(range(10))
    assert numbers(train) == sorted(numbers(train)) != list(range(7))
    assert [val[i].label for i in range(3)] == [n % 2 for n in numbers(val)]
    assert sorted(train.order(torch.Generator()).tolist()) == list(range(7))


@pytest.mark.parametrize(
    ("kind", "labels", "classes", "multi_label"),
    [
        ("classes", [1, 0, 1], CLASSES, False),
        ("numbers", [3, 0, 1], ["0", "1", "2", "3"], False),
        ("several classes", [[1], [], [0, 1]], CLASSES, True),
        ("several numbers", [[2], [], [0, 1]], ["0", "1", "2"], True),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_labels(tmp_path, kind, labels, classes, multi_label, streaming):
    path = write_parquet(tmp_path / "data", table([picture(i) for i in range(3)], labels, kind))
    source = opened(path, streaming=streaming)
    assert (source.class_names, source.multi_label) == (classes, multi_label)
    for index, label in enumerate(labels):
        sample = source[index]
        if multi_label:
            assert sample.labels.dtype == torch.bool
            assert sample.labels.tolist() == [i in label for i in range(len(classes))]
            assert sample.label is None
        else:
            assert (sample.label, sample.labels) == (label, None)


def test_lists_of_labels_in_tar_files(tmp_path):
    samples = [{"jpg": picture(i), "json": text} for i, text in enumerate([b"[0, 2]", b"[]", b"[1]"])]
    path = write_tar(tmp_path / "data/train.tar", samples)
    expected = [[True, False, True], [False, False, False], [False, True, False]]
    for streaming in (False, True):
        source = opened(path, image_column="jpg", label_column="json", streaming=streaming)
        assert [source[i].labels.tolist() for i in range(3)] == expected


@pytest.mark.parametrize("streaming", [False, True])
def test_without_labels(tmp_path, ten, streaming):
    for path, options in [
        (ten, {"label_column": None}),
        (write_parquet(tmp_path / "bare", table([picture(0)])), {}),
    ]:
        source = opened(path, streaming=streaming, **options)
        assert source.class_names is None
        assert source[0].label is None


def test_a_column_of_bytes_without_the_librarys_metadata(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "data").mkdir()
    plain = pa.table({"picture": [picture(i) for i in range(3)], "label": [0, 1, 2]})
    pq.write_table(plain, tmp_path / "data/train.parquet")
    for streaming in (False, True):
        source = opened(tmp_path / "data", image_column="picture", streaming=streaming)
        assert numbers(source) == [0, 1, 2]
        assert source.class_names == ["0", "1", "2"]


def broken_row(number):
    return picture(number)[:40]


@pytest.mark.parametrize("streaming", [False, True])
def test_unreadable_rows_give_the_next_readable_one(tmp_path, streaming, caplog):
    files = [picture(0), broken_row(1), None, picture(3), broken_row(4)]
    path = write_parquet(tmp_path / "data", table(files, [0, 1, 0, 1, 0]))
    part = opened(path, streaming=streaming).split("train")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [part[i].sample_id for i in range(5)] == [0, 3, 3, 3, 0]
    assert [part[i].label for i in range(5)] == [0, 1, 1, 1, 0]
    assert part.num_unreadable == 3
    named = [record.getMessage() for record in caplog.records if record.name.startswith("dppmask")]
    assert [message.split("place: ")[1].split(" of split")[0] for message in named] == [
        "row 1",
        "row 2",
        "row 4",
    ]


def test_workers_count_unreadable_rows_together(tmp_path):
    files = [picture(i) if i % 3 else broken_row(i) for i in range(9)]
    part = opened(write_parquet(tmp_path / "data", table(files))).split("train")
    batches = eval_batches(part, eval_transform(8), batch_size=2, num_workers=2)
    assert torch.cat([batch.sample_ids for batch in batches]).tolist() == [1, 1, 2, 4, 4, 5, 7, 7, 8]
    assert part.num_unreadable == 3


def test_a_file_of_an_image_folder_that_disappears(tmp_path):
    folder = write_folder(tmp_path / "data", odd_pictures(), LABELS)
    part = opened(folder).split("train")
    next(folder.rglob("000001.png")).unlink()
    assert part[1].sample_id == 2


def damaged(folder):
    file = next(folder.glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-30])


@pytest.mark.parametrize("streaming", [False, True])
def test_damaged_file(ten, streaming):
    damaged(ten)
    with pytest.raises(UserError, match="Parquet magic bytes not found") as caught:
        opened(ten, streaming=streaming).split("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        (
            "classes",
            [0, -1],
            r"has the label -1, but labels must be in \[0, 1\]; .* set label_column to null",
        ),
        ("numbers", [0, None], "has 1 rows without a label"),
        ("words", ["cat", "dog"], "label_column label must hold classes, .* but it holds Value"),
    ],
)
def test_labels_that_are_none(tmp_path, streaming, kind, labels, message):
    path = write_parquet(tmp_path / "data", table([picture(0), picture(1)], labels, kind))
    with pytest.raises(UserError, match=message):
        opened(path, streaming=streaming).split("train")


def test_label_outside_the_names(tmp_path):
    import pyarrow as pa

    two = table([picture(0), picture(1)], [0, 1])
    wrong = two.data.table.set_column(1, two.data.table.schema.field("label"), [pa.array([0, 7])])
    path = write_parquet(tmp_path / "data", two)
    pa.parquet.write_table(wrong, next(path.glob("*.parquet")))
    for streaming in (False, True):
        with pytest.raises(UserError, match=r"has the label 7, but labels must be in \[0, 1\]"):
            opened(path, streaming=streaming).split("train")


def test_held_out_labels_that_were_not_trained_on(tmp_path):
    path = write_parquet(tmp_path / "data", table([picture(0), picture(1)], [0, 1], "numbers"))
    write_parquet(path, table([picture(2)], [2], "numbers"), split="validation")
    with pytest.raises(
        UserError, match=r"split validation of .* has the label 2, but labels must be in \[0, 1\]"
    ):
        opened(path).split("val")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_column": "imag"}, "image_column: there is no column imag; did you mean image?"),
        ({"label_column": "lable"}, "label_column: there is no column lable; did you mean label?"),
        ({"image_column": "label"}, "image_column label must hold images"),
        ({"train_split": "trian"}, "train_split: .* has no split trian; did you mean train?"),
        ({"name": "large"}, "path: cannot open .*'large'"),
        ({"revision": "main"}, "revision is for names on the hub"),
    ],
)
def test_wrong_options(ten, streaming, options, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as caught:
        opened(ten, streaming=streaming, **options).split("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 1.0}, r"val_fraction must be in \[0, 1\)"),
        ({"window": 0}, "window must be at least 1"),
        ({"lanes": 0}, "lanes must be at least 1"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        HubDataset("anything", **options)


@pytest.mark.parametrize("streaming", [False, True])
def test_offline_is_one_line(tmp_path, streaming):
    source = HubDataset("nobody/nothing", cache_dir=str(tmp_path), streaming=streaming)
    with pytest.raises(UserError, match=r"path: cannot open nobody/nothing: .*(?i:offline)") as caught:
        source.split("train")
    assert "\n" not in str(caught.value)


def test_path_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="path must be a folder, a file or a name on the hub"):
        opened(tmp_path / "nowhere").split("train")


def test_scripts_are_not_run(tmp_path):
    trap = tmp_path / "sprung"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/data.py").write_text(f"open({str(trap)!r}, 'w').close()\n")
    with pytest.raises(UserError, match="path: cannot open"):
        opened(tmp_path / "data").split("train")
    assert not trap.exists()


def test_library_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dppmask\[hub\]'"):
        HubDataset("anything").split("train")


@pytest.mark.parametrize("streaming", [False, True])
def test_source_and_part_can_be_stored(ten, streaming):
    source = specs.build(specs.describe(opened(ten, streaming=streaming, window=7)))
    assert source.window == 7
    part = source.split("train")
    assert numbers(pickle.loads(pickle.dumps(part))) == list(range(10))


@pytest.mark.parametrize("streaming", [False, True])
def test_fingerprint_follows_the_files(ten, streaming):
    source = opened(ten, streaming=streaming)
    before = source.split("train").fingerprint
    assert source.split("train").fingerprint == before != ""
    write_parquet(ten, table([picture(i) for i in range(11, 21)], [i % 2 for i in range(10)]))
    assert source.split("train").fingerprint != before
