"""Shards read where they lie: the same batches however often interrupted and whoever reads them."""

import logging

import pytest
import torch

pytest.importorskip("datasets")

from hub_files import number, numbers, opened, picture, table, write_parquet, write_tar

from dppmask.data import hub_shards
from dppmask.data.hub_rows import ShardRows
from dppmask.data.hub_shards import Columns, open_shards
from dppmask.data.module import Batch, TrainLoader
from dppmask.data.transforms import train_transform
from dppmask.errors import UserError

COUNT = 200
STREAM = {"streaming": True, "window": 48, "lanes": 2}


def parquet(root):
    files = [picture(i) for i in range(COUNT)]
    tables = [table(files[first : first + 50], [0] * 50) for first in range(0, COUNT, 50)]
    return opened(write_parquet(root / "parquet", *tables, rows_per_group=10), **STREAM)


def tar(root):
    for shard in range(2):
        samples = [{"png": picture(i), "cls": b"0"} for i in range(100 * shard, 100 * shard + 100)]
        write_tar(root / f"tar/{shard}.tar", samples)
    return opened(root / "tar", image_column="png", label_column="cls", **STREAM)


@pytest.fixture(scope="module", params=[parquet, tar], ids=["parquet", "tar"])
def part(request, tmp_path_factory):
    """200 pictures in shards."""
    return request.param(tmp_path_factory.mktemp("shards")).split("train")


def loader(part, **options):
    return TrainLoader(part, train_transform(8), **{"batch_size": 8, "seed": 5, "accumulate": 2, **options})


def take(batches: TrainLoader, count: int) -> list[Batch]:
    """The next batches, across epochs."""
    taken: list[Batch] = []
    while len(taken) < count:
        for batch in batches:
            taken.append(batch)
            if len(taken) == count:
                break
    return taken


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.sample_ids, b.sample_ids)
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def undisturbed(part):
    """More than an epoch of 24 batches."""
    return take(loader(part), 30)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_at_any_position_with_any_workers(part, undisturbed, num_workers):
    for position in (3, 24) if num_workers else (0, 11, 24, 25):
        first = loader(part, num_workers=num_workers)
        assert same(take(first, position), undisturbed[:position])
        second = loader(part, num_workers=2 - num_workers if position == 3 else num_workers)
        second.load_state_dict(first.state_dict())
        assert same(take(second, 30 - position), undisturbed[position:])


def test_two_ranks_see_what_one_with_accumulation_sees(part, undisturbed):
    ranks = [take(loader(part, world_size=2, rank=rank, accumulate=1), 15) for rank in (0, 1)]
    assert same([batch for both in zip(*ranks, strict=True) for batch in both], undisturbed)


def test_epochs_are_shuffled_and_whole(part, undisturbed):
    first, second = (
        torch.cat([b.sample_ids for b in undisturbed[some]]) for some in (slice(24), slice(24, 30))
    )
    assert len(first.unique()) == len(first) == 192
    assert not torch.equal(first[: len(second)], second)
    assert (first.diff() == 1).float().mean() < 0.1


def test_the_order_is_that_of_the_shards_but_for_blocks(part):
    assert numbers(part) == list(range(COUNT))


def counted_reads(monkeypatch):
    """How often each block of each shard is read."""
    reads: dict[tuple[str, int], int] = {}
    for kind in hub_shards.SHARDS.values():

        def counted(shard, block, read=kind.read):
            reads[shard.url, block] = reads.get((shard.url, block), 0) + 1
            return read(shard, block)

        monkeypatch.setattr(kind, "read", counted)
    return reads


def test_an_epoch_reads_every_block_once(part, monkeypatch):
    reads = counted_reads(monkeypatch)
    list(loader(part, batch_size=10, accumulate=1))
    assert set(reads.values()) == {1}
    assert len(reads) == len(part._rows.ends)


def test_what_is_kept_is_bounded(tmp_path):
    write_parquet(tmp_path, table([picture(i) for i in range(100)]), rows_per_group=2)
    shards = open_shards([str(next(tmp_path.glob("*.parquet")))], Columns("image", None), tmp_path / "index")
    rows = ShardRows(shards, window=8, lanes=2)
    for index in range(0, 100, 2):  # half of every block
        rows.read(index)
        assert len(rows._blocks) <= 2 * (2 + 1)


def test_shards_are_indexed_once_until_they_change(tmp_path, monkeypatch):
    calls = []
    index = hub_shards.TarShard.index
    monkeypatch.setattr(
        hub_shards.TarShard,
        "index",
        staticmethod(lambda file, columns: calls.append(1) or index(file, columns)),
    )
    path = write_tar(tmp_path / "data/train.tar", [{"png": picture(i)} for i in range(3)])
    source = opened(path, image_column="png", **STREAM)
    for _ in range(2):
        assert numbers(source.split("train")) == [0, 1, 2]
    assert len(calls) == 1
    write_tar(path, [{"png": picture(i)} for i in (5, 6, 7, 8)])
    assert numbers(source.split("train")) == [5, 6, 7, 8]
    for file in tmp_path.rglob("*.json"):
        file.write_text("{damaged")
    assert numbers(source.split("train")) == [5, 6, 7, 8]
    assert len(calls) == 3


def test_samples_of_a_tar_file(tmp_path):
    """Other members stand between; one sample has no image; a second dot belongs to the kind."""
    samples = [
        {"txt": b"a cat", "png": picture(0), "seg.png": picture(9)},
        {"txt": b"nothing"},
        {"seg.png": picture(9), "png": picture(2)},
    ]
    path = write_tar(tmp_path / "data/train.tar", samples)
    assert [opened(path, image_column="png", **STREAM)[i].sample_id for i in range(3)] == [0, 2, 2]
    assert number(opened(path, image_column="seg.png", **STREAM)[0].image) == 9
    with pytest.raises(UserError, match=r"no column jpg; .*(did you mean png|choose from)"):
        opened(path, image_column="jpg", **STREAM).split("train")


def test_damaged_row_group_gives_the_next_readable_rows(tmp_path, caplog):
    import pyarrow.parquet as pq

    folder = write_parquet(tmp_path / "data", table([picture(i) for i in range(12)]))
    part = opened(folder, **STREAM).split("train")
    file = next(folder.glob("*.parquet"))
    column = pq.ParquetFile(file).metadata.row_group(1).column(0)
    content = bytearray(file.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [part[i].sample_id for i in range(3, 9)] == [3, 8, 8, 8, 8, 8]
    assert part.num_unreadable == 4
    assert "row group 1 of" in caplog.text


def test_tar_file_that_is_cut_off(tmp_path):
    path = write_tar(tmp_path / "data/train.tar", [{"png": picture(i)} for i in range(5)])
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"train\.tar: unexpected end of data"):
        opened(path, image_column="png", **STREAM).split("train")


@pytest.mark.parametrize("text", [b"cat", b"1.5", b"", b"true", b'["cat"]'])
def test_tar_labels_that_are_no_numbers(tmp_path, text):
    path = write_tar(tmp_path / "data/train.tar", [{"png": picture(0), "cls": text}])
    with pytest.raises(UserError, match="cls must hold a whole number or a list of them"):
        opened(path, image_column="png", label_column="cls", **STREAM).split("train")


def test_shard_without_the_column(tmp_path):
    folder = write_parquet(tmp_path / "data", table([picture(0)], [0]), table([picture(1)]))
    with pytest.raises(UserError, match=r"train-00001-of-00002\.parquet: there is no column label"):
        opened(folder, **STREAM).split("train")


def test_what_cannot_be_streamed(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").write_bytes(picture(1))
    with pytest.raises(
        UserError, match=r"streaming reads \.parquet and \.tar files, but the data has .*1\.png"
    ):
        opened(tmp_path / "images", **STREAM).split("train")
    table([picture(0)]).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="is a saved table; leave streaming out"):
        opened(tmp_path / "saved", **STREAM).split("train")
