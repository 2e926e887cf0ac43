import json

import pytest
import timm
import torch
from coloured_images import SIDE, tiny_encoder
from torch import nn

from dppmask.errors import UserError
from dppmask.evaluation.classifier import Classifier, find_classifier, load_classifier, save_classifier
from dppmask.evaluation.features import View
from dppmask.evaluation.linear import linear_head
from dppmask.evaluation.linear_fast import FittedHead
from dppmask.models.checkpoint import load_encoder
from dppmask.rng import fold_in, seeded

NAMES = ["cat", "dog", "Käfer"]


def images(count=5, key=0):
    return torch.randn(count, 3, SIDE, SIDE, generator=fold_in(61, key))


def batch_head(width):
    head = linear_head(width, 3)
    for key in range(3):
        head(3 + torch.randn(8, width, generator=fold_in(62, key)))  # running statistics of its own
    return head


def fast_head(width):
    features = 5 + 2 * torch.randn(20, width, generator=fold_in(63))
    zero = FittedHead.zero(features, 3)
    weight, bias = torch.randn(3, width, generator=fold_in(64)), torch.tensor([0.5, -1.0, 0.0])
    return FittedHead(zero.mean, zero.scale, weight, bias, [])


HEADS = {
    "batch": batch_head,
    "layer": lambda width: nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 3)),
    "plain": lambda width: nn.Linear(width, 3),
    "fast": lambda width: fast_head(width).module(),
}


@pytest.mark.parametrize("view", [View("mean"), View("cls_mean", blocks=2)])
@pytest.mark.parametrize("head", HEADS)
def test_comes_back_with_the_same_logits(tmp_path, head, view):
    encoder = tiny_encoder()
    encoder.mean = (0.1, 0.2, 0.3)
    with seeded(0):
        classifier = Classifier(encoder, HEADS[head](view.width(encoder)), view, NAMES).eval()
    save_classifier(classifier, tmp_path)
    loaded = load_classifier(tmp_path)
    assert torch.equal(loaded(images()), classifier(images()))
    assert (loaded.view, loaded.class_names, loaded.training) == (view, NAMES, False)
    assert loaded.encoder.mean == (0.1, 0.2, 0.3)
    assert not torch.equal(loaded(images()), loaded(images(key=1)))


def test_logits_are_the_head_on_the_pooled_tokens():
    encoder, head = tiny_encoder(), nn.Linear(32, 3)
    expected = head(encoder.encode(images()).prefix[:, 0])
    torch.testing.assert_close(Classifier(encoder, head, View("cls"), NAMES)(images()), expected)


def test_the_module_of_a_fitted_head_has_its_scores():
    head = fast_head(6)
    features = 5 + 2 * torch.randn(9, 6, generator=fold_in(65))
    torch.testing.assert_close(head.module()(features), head.scores(features), rtol=1e-5, atol=1e-5)


def test_its_encoder_can_be_used_alone(tmp_path):
    encoder = tiny_encoder()
    save_classifier(Classifier(encoder, nn.Linear(32, 3), View("mean"), NAMES), tmp_path)
    expected = encoder.eval().encode(images()).patches
    assert torch.equal(load_encoder(tmp_path).eval().encode(images()).patches, expected)
    alone = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True).eval()
    torch.testing.assert_close(alone.forward_features(images())[:, encoder.num_prefix :], expected)


@pytest.mark.parametrize(
    "head",
    [nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 3)), nn.Linear(32, 3, bias=False), nn.Identity()],
)
def test_other_heads_are_refused(tmp_path, head):
    with pytest.raises(UserError, match="the head of a classifier must be a linear layer") as error:
        save_classifier(Classifier(tiny_encoder(), head, View("mean"), NAMES), tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_folders_that_hold_none(tmp_path):
    with pytest.raises(UserError, match=r"holds no classifier: there is no classifier\.json"):
        load_classifier(tmp_path)
    config = tmp_path / "classifier.json"
    config.write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*classifier\.json"):
        load_classifier(tmp_path)
    config.write_text("{}")
    with pytest.raises(UserError, match="was not written by save_classifier"):
        load_classifier(tmp_path)


def test_files_that_do_not_belong_together(tmp_path):
    save_classifier(Classifier(tiny_encoder(), nn.Linear(32, 3), View("mean"), NAMES), tmp_path)
    config = json.loads((tmp_path / "classifier.json").read_text())
    config["head"]["num_classes"] = 4
    (tmp_path / "classifier.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"head\.safetensors does not fit this architecture: weight has shape"
    ):
        load_classifier(tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read .*head\.safetensors"):
        load_classifier(tmp_path)


def test_it_is_found_in_the_run_that_was_fine_tuned(tmp_path):
    classifier = Classifier(tiny_encoder(), nn.Linear(tiny_encoder().embed_dim, 3), View(), NAMES)
    with pytest.raises(UserError, match=r"holds no classifier\.json; fine-tune first"):
        find_classifier(tmp_path)
    folder = tmp_path / "finetune" / "0123" / "classifier"
    save_classifier(classifier, folder)
    for place in (tmp_path, tmp_path / "finetune", tmp_path / "finetune" / "0123", folder):
        assert find_classifier(place) == folder
    save_classifier(classifier, tmp_path / "finetune" / "4567" / "classifier")
    with pytest.raises(UserError, match=r"holds 2 classifiers; name one of .*0123.*4567"):
        find_classifier(tmp_path)
