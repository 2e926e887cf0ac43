from dataclasses import replace

import pytest
import torch
from coloured_images import Coloured, Lamps, Unlabelled, tiny_encoder
from PIL import Image

from dppmask.data.clevr import CLEVR
from dppmask.data.coco import COCO
from dppmask.data.folder import ImageFolder
from dppmask.data.scenes import Scenes
from dppmask.data.scenes_export import export_scenes
from dppmask.data.transforms import EvalTransform
from dppmask.errors import UserError
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.features import View, feature_key, frozen, frozen_features
from dppmask.evaluation.task import Task
from dppmask.models.encoder import Encoder


@pytest.fixture
def part():
    return Part.open(Coloured(train_size=7), "train")


def stored(part, encoder, **options):
    transform = EvalTransform(encoder.image_size, **options)
    return torch.stack([transform(part.images[i].image)[0] for i in range(len(part.images))])


def test_features_are_pooled_tokens_in_index_order(part):
    encoder = tiny_encoder().eval()
    with torch.no_grad():
        tokens = encoder.encode(stored(part, encoder))
    expected = {
        "cls": tokens.prefix[:, 0],
        "mean": tokens.patches.mean(1),
        "cls_mean": torch.cat([tokens.prefix[:, 0], tokens.patches.mean(1)], 1),
    }
    for pooling, values in expected.items():
        features = frozen_features(encoder, part, View(pooling), Compute(batch_size=3))
        torch.testing.assert_close(features.values, values)
        assert features.values.shape[1] == View(pooling).width(encoder)
        assert features.sample_ids.tolist() == list(range(7))
        assert features.labels.tolist() == [part.images[i].label for i in range(7)]


def test_blocks_lie_side_by_side_the_last_at_the_end(part):
    encoder = tiny_encoder()
    last = frozen_features(encoder, part, View("cls", 1), Compute()).values
    both = frozen_features(encoder, part, View("cls", 2), Compute()).values
    assert both.shape[1] == View("cls", 2).width(encoder) == 2 * last.shape[1]
    torch.testing.assert_close(both[:, -last.shape[1] :], last)


def test_the_encoder_comes_back_as_it_was(part):
    encoder = tiny_encoder(backbone_args={"depth": 2, "embed_dim": 32, "drop_path_rate": 0.5}).train()
    encoder.backbone.blocks[0].eval()
    modes = [module.training for module in encoder.modules()]
    one, two = (frozen_features(encoder, part, View(), Compute()).values for _ in range(2))
    assert torch.equal(one, two)  # drop path was off
    assert [module.training for module in encoder.modules()] == modes
    with pytest.raises(RuntimeError), frozen(encoder, Compute()):
        raise RuntimeError
    assert [module.training for module in encoder.modules()] == modes
    assert torch.is_grad_enabled()


def test_labels_of_all_kinds():
    encoder = tiny_encoder()
    several = frozen_features(encoder, Part.open(Lamps(5), "train"), View(), Compute())
    assert several.labels.shape == (5, 4)
    assert several.labels.dtype == torch.bool
    none = frozen_features(encoder, Part.open(Unlabelled(5), "train"), View(), Compute())
    assert none.labels is None
    with pytest.raises(UserError, match="no labels"):
        none.require_labels()


def test_bf16_is_close_and_stored_as_float32(part):
    exact, rough = (
        frozen_features(tiny_encoder(), part, View(), Compute(precision=p)) for p in ("32", "bf16")
    )
    assert rough.values.dtype == torch.float32
    assert not torch.equal(rough.values, exact.values)
    torch.testing.assert_close(rough.values, exact.values, atol=0.1, rtol=0.1)


class Cached:
    """Features of a part through a cache, and how often the encoder really ran."""

    def __init__(self, folder, monkeypatch):
        self.compute = Compute(cache=folder)
        self.runs = 0
        self.monkeypatch = monkeypatch

    def features(self, encoder, part, view=None):
        def counted(images, **options):
            self.runs += 1
            return Encoder.encode(encoder, images, **options)

        self.monkeypatch.setattr(encoder, "encode", counted)
        return frozen_features(encoder, part, view or View(), self.compute)


def test_the_cache_answers_the_same_question_only(tmp_path, monkeypatch, part):
    cached, encoder = Cached(tmp_path, monkeypatch), tiny_encoder()
    first, second = cached.features(encoder, part), cached.features(encoder, part)
    assert cached.runs == 1
    for name, value in vars(first).items():
        assert torch.equal(getattr(second, name), value)
    with torch.no_grad():
        encoder.backbone.norm.bias[0] += 1e-3
    cached.features(encoder, part)
    cached.features(encoder, part, View("mean"))
    cached.features(encoder, Part.open(Coloured(train_size=7), "val"))
    cached.features(encoder, Part.open(Coloured(train_size=8), "train"))
    assert cached.runs == 5
    cached.features(tiny_encoder(), part)
    assert cached.runs == 5  # another object, the weights of the first


def test_a_changed_file_is_another_key(tmp_path):
    class Files(Coloured):
        def path(self, index):
            return tmp_path / "a.png"

    encoder = tiny_encoder()
    (tmp_path / "a.png").write_bytes(b"one")
    before = feature_key(encoder, Part(Coloured(7), "train", Files(7)), View(), Compute())
    (tmp_path / "a.png").write_bytes(b"another")
    assert feature_key(encoder, Part(Coloured(7), "train", Files(7)), View(), Compute()) != before


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_file_is_left_out_not_replaced(tmp_path, num_workers):
    for index in range(5):
        pixels = Coloured()[index].image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    whole = frozen_features(tiny_encoder(), Part.open(ImageFolder(str(tmp_path)), "train"), View(), Compute())
    (tmp_path / "3.png").write_bytes(b"no image")
    part = Part.open(ImageFolder(str(tmp_path)), "train")
    compute = Compute(batch_size=2, num_workers=num_workers)
    rest = frozen_features(tiny_encoder(), part, View(), compute)
    assert rest.sample_ids.tolist() == [0, 1, 2, 4]
    torch.testing.assert_close(rest.values, whole.values[[0, 1, 2, 4]])
    assert rest.notes(part) == ["train: 1 images could not be read and are left out"]
    assert whole.notes(part) == []


def test_a_part_without_images():
    with pytest.raises(UserError, match="the val part has no images"):
        Part.open(Coloured(val_size=0), "val")


def test_normalisation_and_precision_are_part_of_the_key(part):
    encoder, view, compute = tiny_encoder(), View(), Compute()
    keys = {feature_key(encoder, part, view, compute)}
    keys.add(feature_key(encoder, part, view, replace(compute, precision="bf16")))
    encoder.mean = (0.5, 0.5, 0.5)
    keys.add(feature_key(encoder, part, view, compute))
    assert len(keys) == 3
    assert feature_key(encoder, part, view, replace(compute, batch_size=3)) in keys


def test_a_damaged_cache_file_is_reported_and_replaced(tmp_path, monkeypatch, part, caplog):
    cached, encoder = Cached(tmp_path, monkeypatch), tiny_encoder()
    first = cached.features(encoder, part)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(cached.features(encoder, part).values, first.values)
    assert "extracting them again" in caplog.text
    cached.features(encoder, part)
    assert cached.runs == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: View("max"), "pooling must be one of cls, mean, cls_mean, got 'max'"),
        (lambda: View(blocks=0), "blocks must be at least 1"),
        (lambda: View(blocks=3).check(tiny_encoder()), "blocks must be at most the depth of the encoder, 2"),
        (lambda: Compute(batch_size=0), "batch_size must be at least 1"),
        (lambda: Compute(num_workers=-1), "num_workers must be at least 0"),
        (lambda: Compute(precision="64"), "precision must be '32' or 'bf16'"),
    ],
)
def test_options_out_of_range(change, message):
    with pytest.raises(UserError, match=message):
        change()


def test_an_encoder_without_a_class_token_needs_the_mean(part):
    arguments = {"depth": 2, "embed_dim": 32, "class_token": False}
    encoder = tiny_encoder(backbone_args=arguments)
    with pytest.raises(UserError, match="use 'mean'"):
        frozen_features(encoder, part, View("cls"), Compute())
    assert frozen_features(encoder, part, View("mean"), Compute()).values.shape == (7, 32)


def test_whole_images_keep_their_border(part, monkeypatch):
    encoder = tiny_encoder().eval()
    cropped = feature_key(encoder, part, View(), Compute())
    monkeypatch.setattr(Coloured, "whole", True)
    assert feature_key(encoder, part, View(), Compute()) != cropped
    with torch.no_grad():
        expected = encoder.encode(stored(part, encoder, resize_ratio=None)).prefix[:, 0]
    torch.testing.assert_close(frozen_features(encoder, part, View(), Compute()).values, expected)


def test_parts_of_rendered_scenes_and_of_their_files_are_whole(tmp_path):
    scenes = Scenes(size=32, train_size=2, val_size=1)
    export_scenes(scenes, tmp_path / "coco", "coco")
    export_scenes(scenes, tmp_path / "clevr", "clevr")
    for source in (scenes, COCO(str(tmp_path / "coco")), CLEVR(str(tmp_path / "clevr"))):
        assert source.split("val").whole
    assert not ImageFolder(str(tmp_path / "clevr/images")).split("val").whole


def test_labels_that_change_are_not_answered_from_the_cache(tmp_path, monkeypatch):
    export_scenes(Scenes(size=32, train_size=3, val_size=1), tmp_path / "data", "clevr")
    cached, encoder = Cached(tmp_path / "cache", monkeypatch), tiny_encoder()
    first = cached.features(encoder, Part.open(CLEVR(str(tmp_path / "data")), "train"))
    path = tmp_path / "data/scenes/CLEVR_train_scenes.json"
    path.write_text(path.read_text().replace('"color": "', '"color": "gray", "other": "'))
    second = cached.features(encoder, Part.open(CLEVR(str(tmp_path / "data")), "train"))
    assert torch.equal(first.values, second.values)
    assert not torch.equal(first.labels, second.labels)


def test_a_missing_image_has_a_key_and_no_features(tmp_path, monkeypatch):
    export_scenes(Scenes(size=32, train_size=3, val_size=1), tmp_path / "data", "coco")
    part = Part.open(COCO(str(tmp_path / "data")), "train")
    part.images.path(1).unlink()
    cached, encoder = Cached(tmp_path / "cache", monkeypatch), tiny_encoder()
    for _ in range(2):
        features = cached.features(encoder, part)
        assert features.sample_ids.tolist() == [0, 2]
        assert torch.equal(features.labels, torch.stack([part.images[i].labels for i in (0, 2)]))
    assert cached.runs == 1


def test_parts_whose_labels_mean_different_things(part):
    val = Part.open(Coloured(num_classes=4), "val")
    with pytest.raises(UserError, match=r"classes must agree, but train has 3 \(class 0, .*val 4 \(class 0"):
        Task(part, val, part.images.class_names, View(), Compute())
