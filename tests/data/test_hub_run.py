"""Training and evaluation on data sets of the hub's formats: as on the same images in a folder."""

import json
import shlex
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

pytest.importorskip("datasets")

from hub_files import opened, picture, table, write_folder, write_parquet

from dppmask import cli
from dppmask.models.mae import MAE
from dppmask.training.run import pretrain

FILES = [picture(i) for i in range(40)]
LABELS = [0] * 20 + [1] * 20  # in the order of class folders
MODEL = "--backbone test_vit --image_size 32 --patch_size 8 --method.decoder_embed_dim 16"
TRAINING = (
    "--method.decoder_depth 1 --method.decoder_num_heads 2 --batch_size 3 --accumulate 5 --epochs 1 "
    "--num_workers 0 --accelerator cpu"
)


def run(capsys, line):
    """What the command prints to stdout."""
    status = cli.main(shlex.split(line))
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


@pytest.fixture
def sources(tmp_path):
    """Options of the same 40 images, of which 10 are held out, as a folder and as a data set."""
    chosen = {"train": [i for i in range(40) if i % 4], "validation": list(range(0, 40, 4))}
    for split, ids in chosen.items():
        files, labels = [FILES[i] for i in ids], [LABELS[i] for i in ids]
        write_folder(tmp_path / "folder" / split, files, labels)
        write_parquet(tmp_path / "hub", table(files, labels), split=split)
    cache = f"--data.cache_dir {tmp_path / 'cache'}"
    return {
        "folder": f"--data ImageFolder --data.root {tmp_path / 'folder'}",
        "hub": f"--data HubDataset --data.path {tmp_path / 'hub'} {cache}",
        "shards": f"--data HubDataset --data.path {tmp_path / 'hub'} {cache} --data.streaming true",
    }


def test_commands_give_the_same_as_on_a_folder(sources, tmp_path, capsys):
    """Bit for bit, after two optimiser steps; streamed, the images are the same in another order."""
    for name, data in sources.items():
        folder = tmp_path / "runs" / name
        assert run(capsys, f"pretrain {data} {MODEL} {TRAINING} --run {folder}") == f"{folder}\n"
    weights = [(tmp_path / "runs" / name / "encoder/model.safetensors").read_bytes() for name in sources]
    assert weights[0] == weights[1] != weights[2]
    evaluate = f"evaluate --run {tmp_path / 'runs/folder'} --protocol KNN --protocol.k [5] --device cpu"
    records = [json.loads(run(capsys, f"{evaluate} {data}")) for data in sources.values()]
    assert records[0]["metrics"] == records[1]["metrics"] == records[2]["metrics"]


def test_wrong_names_are_answered_with_the_nearest(tmp_path, capsys):
    for option, answer in [
        ("--data HubDatset", "did you mean HubDataset?"),
        ("--data HubDataset --data.path x --data.image_colum y", "did you mean image_column?"),
    ]:
        assert cli.main(shlex.split(f"pretrain {option} --run {tmp_path / 'run'}")) != 0
        assert answer in capsys.readouterr().err


class PowerCut(BaseException):
    """What no code of the library catches."""


class Cut(Callback):
    """Stops at a micro-batch."""

    def __init__(self, at: int) -> None:
        self.left = at

    def on_train_batch_start(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise PowerCut


@pytest.mark.parametrize("streaming", [False, True])
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path, streaming):
    """Cut without workers, and with two, in the first epoch and the second; bit for bit."""
    path = write_parquet(tmp_path / "data", table(FILES[:20]), table(FILES[20:]))
    options = {
        "data": opened(path, streaming=streaming, window=8, lanes=2),
        "method": partial(MAE, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2),
        "backbone": "test_vit",
        "backbone_args": {"depth": 1},
        "image_size": 32,
        "patch_size": 8,
        "epochs": 2,
        "batch_size": 4,
        "accumulate": 2,
        "base_lr": 0.1,
        "save_last_every": 1,
        "accelerator": "cpu",
    }
    pretrain(run=tmp_path / "undisturbed", num_workers=0, **options)
    for at, workers in [(6, 0), (9, 2)]:
        with pytest.raises(PowerCut):
            pretrain(run=tmp_path / "cut", num_workers=workers, callbacks=[Cut(at)], resume=True, **options)
    assert pretrain(run=tmp_path / "cut", num_workers=2, resume=True, **options).finished
    states = [
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("undisturbed", "cut")
    ]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
