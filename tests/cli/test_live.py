import pytest
import torch

from dppmask.commands.live import LivePictures
from dppmask.data.scenes import Scenes
from dppmask.masks import DPPMask
from dppmask.models.checkpoint import load_model
from dppmask.training.run import pretrain


def train(folder, callbacks):
    pretrain(
        run=folder,
        data=Scenes(size=32, train_size=8, val_size=1),
        method=small_mae(),
        mask=DPPMask(purge_ratio=0.3),
        backbone="test_vit",
        image_size=32,
        patch_size=8,
        epochs=1,
        batch_size=4,
        log_every=1,
        num_workers=0,
        accelerator="cpu",
        callbacks=callbacks,
    )
    return load_model(folder).state_dict()


def small_mae():
    sizes = {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2}
    return {"class_path": "dppmask.models.mae.MAE", "init_args": sizes}


def test_pictures_show_the_run_and_change_nothing(tmp_path):
    watched = train(tmp_path / "watched", [LivePictures(tmp_path / "watched", interval=0.0)])
    alone = train(tmp_path / "alone", [])
    for name in ("masks.png", "curves.png"):
        assert (tmp_path / "watched" / "figures" / name).read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "alone" / "figures").exists()
    assert all(torch.equal(watched[name], alone[name]) for name in alone)


@pytest.mark.parametrize(("interval", "count"), [(0.0, 3), (1e6, 1)], ids=["always", "at the end"])
def test_pictures_are_as_frequent_as_asked(tmp_path, monkeypatch, interval, count):
    drawn = []
    pictures = LivePictures(tmp_path / "run", interval=interval)
    monkeypatch.setattr(pictures, "draw", lambda trainer, module: drawn.append(trainer.global_step))
    train(tmp_path / "run", [pictures])
    assert len(drawn) == count  # 2 steps and the end
    assert drawn[-1] == 2
