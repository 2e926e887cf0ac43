import argparse
import json
import math

import pytest
import safetensors.torch
import timm
import torch
import yaml

from dppmask import specs
from dppmask.errors import UserError
from dppmask.masks.base import Mask
from dppmask.models import checkpoint, weights
from dppmask.models.build import build_model
from dppmask.models.checkpoint import init_weights, load_encoder, load_model, load_official_mae, save_encoder
from dppmask.models.encoder import Encoder
from dppmask.models.ibot import IBOT
from dppmask.models.mae import MAE
from dppmask.models.positions import resize_table
from dppmask.rng import fold_in, seeded

CONFIG = {
    "method": {
        "class_path": "dppmask.models.mae.MAE",
        "init_args": {"decoder_embed_dim": 24, "decoder_depth": 1, "decoder_num_heads": 2},
    },
    "backbone": "test_vit",
    "image_size": [24, 32],
    "patch_size": 8,
    "backbone_args": {"depth": 2, "embed_dim": 32},
    "epochs": 3,
}


def tiny_model(seed=0, **changes):
    with seeded(seed):
        return build_model(CONFIG | changes)


def write_run(folder, model, config=CONFIG):
    """What training leaves behind, as far as weights go."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 7}, folder / "checkpoints" / "last.ckpt")
    return folder


def images_for(encoder, batch=2):
    return torch.randn(batch, encoder.in_chans, *encoder.image_size, generator=fold_in(9))


def assert_same_features(one, other):
    images = images_for(one)
    a, b = one.eval().encode(images), other.eval().encode(images)
    assert torch.equal(a.patches, b.patches)
    assert torch.equal(a.prefix, b.prefix)


# ---- an export is the old one or the new one


def test_an_export_that_fails_keeps_the_one_before(tmp_path, full_disk):
    old, new = (tiny_model(seed).encoder for seed in (0, 1))
    save_encoder(old, tmp_path)
    with full_disk(5000), pytest.raises(UserError, match=r"model\.safetensors: the disk is full .*intact"):
        save_encoder(new, tmp_path)
    assert_same_features(load_encoder(tmp_path), old)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_the_config_of_an_export_comes_after_the_weights(tmp_path, monkeypatch):
    """Who finds the config finds the weights too."""

    def stop(path, value):
        assert path.name == "config.json"
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        save_encoder(tiny_model().encoder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


# ---- timm alone loads what is exported


@pytest.fixture(
    params=[
        ("test_vit", {}),
        ("deit3_small_patch16_224", {"embed_dim": 32, "num_heads": 2}),
        ("vit_small_patch14_reg4_dinov2", {"embed_dim": 32, "num_heads": 2}),
        ("vit_base_patch16_gap_224", {"embed_dim": 32, "num_heads": 2}),
    ],
    ids=lambda param: param[0],
)
def exported(request, tmp_path):
    """(encoder, its folder, the arguments that timm needs without the folder's config)."""
    backbone, backbone_args = request.param
    backbone_args = {"depth": 2} | backbone_args
    with seeded(0):
        encoder = Encoder(
            backbone, image_size=(24, 40), patch_size=8, in_chans=4, backbone_args=backbone_args
        )
    save_encoder(encoder, tmp_path / "encoder")
    size = {"img_size": (24, 40), "patch_size": 8, "in_chans": 4, "num_classes": 0, "dynamic_img_size": False}
    return encoder.eval(), tmp_path / "encoder", size | backbone_args


def test_timm_alone_loads_the_folder(exported):
    encoder, folder, _ = exported
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = images_for(encoder)
    encoded = encoder.encode(images)
    assert torch.equal(model.forward_features(images), torch.cat([encoded.prefix, encoded.patches], dim=1))
    assert model.pretrained_cfg["mean"] == list(encoder.mean)
    assert model(images).shape == (2, encoder.embed_dim)


def test_timm_alone_loads_the_file(exported):
    encoder, folder, arguments = exported
    model = timm.create_model(
        encoder.backbone_name, checkpoint_path=str(folder / "model.safetensors"), **arguments
    ).eval()
    images = images_for(encoder)
    encoded = encoder.encode(images)
    assert torch.equal(model.forward_features(images), torch.cat([encoded.prefix, encoded.patches], dim=1))


def test_folder_round_trip(exported):
    encoder, folder, _ = exported
    encoder.mean = (0.1, 0.2, 0.3, 0.4)
    save_encoder(encoder, folder)
    loaded = load_encoder(folder)
    assert_same_features(encoder, loaded)
    assert loaded.mean == encoder.mean
    assert loaded.position_table.requires_grad == encoder.position_table.requires_grad


# ---- runs


def test_load_model_gives_the_whole_method(tmp_path):
    model = tiny_model()
    loaded = load_model(write_run(tmp_path / "run", model))
    assert type(loaded) is MAE
    mask = Mask.from_scores(torch.rand(2, 12, generator=fold_in(1)), 7)
    images = images_for(model.encoder)
    assert torch.equal(model(model.context(images), mask).loss, loaded(loaded.context(images), mask).loss)


def test_loading_draws_from_no_global_generator(tmp_path, official_state):
    run = write_run(tmp_path / "run", tiny_model())
    save_encoder(tiny_model().encoder, tmp_path / "encoder")
    state = torch.get_rng_state()
    load_model(run)
    load_encoder(run)
    load_encoder(tmp_path / "encoder")
    load_encoder("test_vit")
    load_official_mae(official_state(), num_heads=4, decoder_num_heads=2, norm_pix_loss=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_load_encoder_prefers_what_the_run_exported(tmp_path):
    last, averaged = tiny_model(0), tiny_model(1)
    run = write_run(tmp_path / "run", last)
    assert_same_features(load_encoder(run), last.encoder)
    save_encoder(averaged.encoder, run / "encoder")
    assert_same_features(load_encoder(str(run)), averaged.encoder)


# ---- files of weights


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("with_decoder", [False, True])
def test_load_encoder_reads_official_files(tmp_path, official_state, suffix, with_decoder):
    state = official_state()
    whole = load_official_mae(state, num_heads=4, decoder_num_heads=2, norm_pix_loss=True)
    if not with_decoder:
        state = {k: v for k, v in state.items() if not k.startswith(("mask_token", "decoder"))}
    path = tmp_path / f"mae{suffix}"
    if suffix == ".pth":
        torch.save({"model": state, "args": argparse.Namespace(lr=1.0), "epoch": 3}, path)
    else:
        safetensors.torch.save_file(state, path)
    assert_same_features(whole.encoder, load_encoder(path, num_heads=4))


def test_load_encoder_reads_plain_timm_files(tmp_path):
    with seeded(3):
        plain = timm.create_model(
            "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=10
        ).eval()
    torch.save(plain.state_dict(), tmp_path / "vit.pth")
    encoder = load_encoder(tmp_path / "vit.pth").eval()
    images = images_for(encoder)
    assert torch.equal(encoder.encode(images).patches, plain.forward_features(images)[:, 1:])
    assert encoder.position == "learned"


def test_a_bare_name_is_an_untrained_encoder(caplog):
    encoder = load_encoder("test_vit", image_size=32)
    assert encoder.image_size == (32, 32)
    assert "test_vit is an architecture without weights" in caplog.text


@pytest.fixture
def hugging_face_cache(tmp_path, monkeypatch):
    """The weights test_vit.r160_in1k in a local cache, made up; returns the model they come from."""
    with seeded(4):
        published = timm.create_model("test_vit").eval()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(published.state_dict(), path)
    cache = {("timm/test_vit.r160_in1k", "model.safetensors"): str(path)}
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda repo, name: cache.get((repo, name)))
    return published


def test_published_weights_come_from_the_local_cache(hugging_face_cache):
    encoder = load_encoder("test_vit.r160_in1k").eval()
    images = images_for(encoder)
    assert encoder.image_size == (160, 160)
    assert encoder.mean == (0.5, 0.5, 0.5)
    torch.testing.assert_close(
        encoder.encode(images).patches, hugging_face_cache.forward_features(images)[:, 1:]
    )


def test_published_weights_are_never_downloaded(monkeypatch):
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda repo, name: None)
    with pytest.raises(
        UserError, match=r"not in the local .*hf download timm/test_vit.r160_in1k model.safetensors"
    ):
        load_encoder("test_vit.r160_in1k")
    with pytest.raises(
        UserError, match=r"no weights named test_vit.r161_in1k; did you mean test_vit.r160_in1k"
    ):
        load_encoder("test_vit.r161_in1k")


# ---- another image size


def test_load_encoder_resizes_the_positions(tmp_path):
    encoder = tiny_model().encoder
    with torch.no_grad():
        encoder.position_table.normal_(generator=fold_in(5))
    save_encoder(encoder, tmp_path)
    larger = load_encoder(tmp_path, image_size=(40, 32))
    assert larger.grid == (5, 4)
    expected = resize_table(encoder.position_table, (3, 4), (5, 4))
    torch.testing.assert_close(larger.position_table, expected)
    again = load_encoder(tmp_path)
    assert torch.equal(again.position_table, encoder.position_table)


def test_init_weights_resizes_the_positions_and_leaves_the_decoder_fresh(tmp_path):
    source, model = tiny_model(0), tiny_model(1, image_size=[40, 32])
    run = write_run(tmp_path / "run", source)
    fresh = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    assert init_weights(model, run) == ["encoder"]
    expected = resize_table(source.encoder.position_table, (3, 4), (5, 4))
    torch.testing.assert_close(model.encoder.position_table, expected)
    assert all(torch.equal(fresh[name], value) for name, value in model.decoder.state_dict().items())


# ---- starting from other weights


def test_init_weights_from_a_run_takes_the_whole_method(tmp_path):
    source, model = tiny_model(0), tiny_model(1)
    assert init_weights(model, write_run(tmp_path / "run", source)) == ["encoder", "decoder"]
    ours, theirs = model.state_dict(), source.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_init_weights_from_an_encoder_folder_takes_the_encoder(tmp_path):
    source, model = tiny_model(0), tiny_model(1)
    save_encoder(source.encoder, tmp_path)
    fresh = model.decoder.mask_token.clone()
    assert init_weights(model, tmp_path) == ["encoder"]
    assert_same_features(model.encoder, source.encoder)
    assert torch.equal(model.decoder.mask_token, fresh)


def test_init_weights_from_official_mae(tmp_path, official_state):
    whole = load_official_mae(official_state(), num_heads=4, decoder_num_heads=2, norm_pix_loss=True)
    torch.save({"model": official_state()}, tmp_path / "mae.pth")
    model = tiny_model(
        image_size=12,
        patch_size=4,
        backbone_args={"embed_dim": 48, "depth": 2, "num_heads": 4, "mlp_ratio": 100 / 48},
        method=specs.describe(MAE)
        | {
            "init_args": {
                "decoder_embed_dim": 32,
                "decoder_depth": 1,
                "decoder_num_heads": 2,
                "decoder_mlp_ratio": 2.0,
            }
        },
    )
    assert init_weights(model, tmp_path / "mae.pth", num_heads=4) == ["encoder", "decoder"]
    images, mask = images_for(whole.encoder), Mask.from_scores(torch.rand(2, 9, generator=fold_in(1)), 5)
    assert torch.equal(model(model.context(images), mask).loss, whole(whole.context(images), mask).loss)


def test_init_weights_from_published_weights(hugging_face_cache):
    model = tiny_model(image_size=32, patch_size=16, backbone_args={})
    assert init_weights(model, "test_vit.r160_in1k") == ["encoder"]
    assert torch.equal(
        model.encoder.backbone.blocks[3].mlp.fc1.weight, hugging_face_cache.blocks[3].mlp.fc1.weight
    )


def test_init_weights_needs_weights():
    with pytest.raises(
        UserError, match=r"init_from test_vit names an architecture without weights; .*r160_in1k"
    ):
        init_weights(tiny_model(), "test_vit")


# ---- everything that can be wrong with a source


def test_other_architecture_is_one_line(tmp_path):
    save_encoder(tiny_model().encoder, tmp_path)
    with pytest.raises(
        UserError, match=r"does not fit this architecture: backbone.* has shape .*\(and \d+ more\)"
    ) as e:
        init_weights(tiny_model(backbone_args={"depth": 2, "embed_dim": 64}), tmp_path)
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match=r"does not fit this architecture: backbone.blocks.2.*is missing"):
        init_weights(tiny_model(backbone_args={"depth": 3, "embed_dim": 32}), tmp_path)
    with pytest.raises(UserError, match=r"does not fit this architecture: backbone.blocks.1.*has no place"):
        init_weights(tiny_model(backbone_args={"depth": 1, "embed_dim": 32}), tmp_path)


def damage(path, kind):
    content = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(bytes(range(256)) * 8)
    else:
        path.write_bytes(content[: math.floor(len(content) * float(kind))])


@pytest.mark.parametrize("kind", ["empty", "noise", "0.01", "0.5", "0.99"])
@pytest.mark.parametrize("name", ["last.ckpt", "model.safetensors", "mae.pth"])
def test_damaged_files_are_one_line(tmp_path, official_state, name, kind):
    if name == "last.ckpt":
        source = write_run(tmp_path / "run", tiny_model())
        damage(source / "checkpoints" / name, kind)
    elif name == "model.safetensors":
        source = tmp_path
        save_encoder(tiny_model().encoder, source)
        damage(source / name, kind)
    else:
        source = tmp_path / name
        torch.save({"model": official_state()}, source)
        damage(source, kind)
    with pytest.raises(
        UserError, match=rf"cannot read .*{name}, it is truncated or no file of weights"
    ) as caught:
        load_encoder(source)
    assert "\n" not in str(caught.value)


class Unpickled:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_file_is_executed(tmp_path):
    torch.save({"model": Unpickled(tmp_path / "executed")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"cannot read .*evil.pth"):
        load_encoder(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0\x00\x10JFIF", b"no weights"], ids=["photo", "text"])
def test_no_error_recommends_loading_unsafely(tmp_path, content):
    path = tmp_path / "p00.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*p00.jpg, it is truncated or no file") as caught:
        load_encoder(path)
    assert "weights_only" not in str(caught.value)


def test_a_misspelt_path_names_the_nearest_beside_it(tmp_path):
    write_run(tmp_path / "runs" / "photos", tiny_model())
    with pytest.raises(UserError, match=r"runs/photoz does not exist; did you mean .*runs/photos\?"):
        load_encoder(tmp_path / "runs" / "photoz")
    with pytest.raises(UserError, match=r"rums/photos does not exist; nor does anything in .*rums"):
        load_encoder(tmp_path / "rums" / "photos")


def test_missing_things_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither a run, .*did you mean vit_small_patch16_224"):
        load_encoder("vit_smal_patch16_224")
    with pytest.raises(
        UserError, match=r"empty is neither a run nor a folder with an encoder: there is no config.yaml"
    ):
        load_model(tmp_path / "empty")
    run = write_run(tmp_path / "run", tiny_model())
    (run / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match=r"there is no file .*last.ckpt"):
        load_model(run)
    torch.save({"state_dict": {}}, run / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match=r"last.ckpt holds no method"):
        load_model(run)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list.pth holds a list, not tensors by name"):
        load_encoder(tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", "method: [", r"cannot read .*config.yaml"),
        ("config.yaml", "just text", r"config.yaml: it must hold keys and values"),
        ("config.yaml", "epochs: 3", r"config.yaml is no configuration of a run: it lacks the key method"),
        ("config.json", "{", r"cannot read .*config.json"),
        ("config.json", json.dumps({"architecture": "test_vit"}), r"was not written by save_encoder"),
    ],
)
def test_damaged_configurations_are_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)


# ---- methods that export a teacher

IBOT_CONFIG = CONFIG | {
    "method": {
        "class_path": "dppmask.models.ibot.IBOT",
        "init_args": {
            "out_dim": 8,
            "head_hidden_dim": 8,
            "head_bottleneck_dim": 4,
            "num_local_crops": 0,
        },
    },
    "position": "learned",
}


def taught_model():
    """An iBOT whose teacher has other weights than the student."""
    with seeded(0):
        model = build_model(IBOT_CONFIG)
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def test_an_unfinished_run_gives_the_teacher_and_the_whole_method(tmp_path):
    model = taught_model()
    run = write_run(tmp_path / "run", model, IBOT_CONFIG)
    encoder = load_encoder(run)
    assert encoder.position == "learned"
    assert_same_features(encoder, model.teacher.encoder)
    whole = load_model(run)
    assert isinstance(whole, IBOT)
    torch.testing.assert_close(whole.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_another_method_starts_from_the_teacher(tmp_path):
    model = taught_model()
    run = write_run(tmp_path / "run", model, IBOT_CONFIG)
    mae = tiny_model(position="learned")
    assert init_weights(mae, run) == ["encoder"]
    assert_same_features(mae.encoder, model.teacher.encoder)


def test_a_method_with_a_teacher_starts_both_from_an_encoder(tmp_path):
    save_encoder(tiny_model().encoder, tmp_path)
    model = taught_model()
    assert init_weights(model, tmp_path) == ["encoder"]
    model.before_training()
    assert_same_features(model.teacher.encoder, load_encoder(tmp_path))
