"""The protocol: MAE's parameter groups and classifier, folders, baselines, ranks."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
from coloured_images import Coloured, Lamps, tiny_encoder
from finetune_ranks_script import record
from torch import nn

from dppmask.errors import UserError
from dppmask.evaluation.base import Subject
from dppmask.evaluation.classifier import load_classifier, new_classifier
from dppmask.evaluation.finetune import Finetune
from dppmask.evaluation.run import evaluate
from dppmask.evaluation.supervised import FineTuning, loop
from dppmask.evaluation.supervised.folders import NOT_KEPT
from dppmask.models.checkpoint import save_encoder
from dppmask.models.encoder import Encoder
from dppmask.training.supervised import Supervised
from two_ranks import run_on_two_ranks

SCRIPT = Path(__file__).with_name("finetune_ranks_script.py")
TINY = {"epochs": 2, "warmup_epochs": 1, "batch_size": 8, "micro_batch": 4, "base_lr": 0.02}
DATA = Coloured(train_size=16, val_size=10)


def mae_share(name: str, depth: int, decay: float) -> float:
    """The multiplier by the rule of MAE's util/lr_decay.py, in its names."""
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        layer = 0
    elif name.startswith("blocks"):
        layer = int(name.split(".")[1]) + 1
    else:
        layer = depth + 1
    return decay ** (depth + 1 - layer)


def mae_name(name: str) -> str:
    """Ours → MAE's: the fresh norm is fc_norm, the layer behind it head."""
    name = name.removeprefix("encoder.backbone.")
    return re.sub(r"^head\.1\.", "head.", re.sub(r"^head\.0\.", "fc_norm.", name))


@pytest.mark.parametrize(
    ("backbone", "depth", "decay"), [("vit_base_patch16_224", 12, 0.65), ("test_vit", 6, 0.75)]
)
def test_groups_are_maes(backbone, depth, decay):
    with torch.device("meta"):
        classifier = new_classifier(Encoder(backbone), ["a", "b"], pooling="mean", drop_path=0.1, seed=0)
    settings = FineTuning(1, 0, 1, 1, base_lr=1.0, layer_decay=decay, weight_decay=0.05)
    groups = loop.parameter_groups(classifier, settings)
    names = {id(parameter): mae_name(name) for name, parameter in classifier.named_parameters()}
    actual = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    expected = {
        mae_name(name): (
            pytest.approx(mae_share(mae_name(name), depth, decay)),
            0.0 if parameter.ndim == 1 or mae_name(name) in ("cls_token", "pos_embed") else 0.05,
        )
        for name, parameter in classifier.named_parameters()
    }
    assert actual == expected
    assert sum(len(group["params"]) for group in groups) == len(expected)
    assert {"cls_token", "pos_embed", "fc_norm.weight", "head.bias"} <= actual.keys()
    assert groups[0]["lr_scale"] == 1.0  # the one whose rate is reported


def test_the_classifier_is_timms_with_fc_norm():
    """timm's global pooling with fc_norm is what MAE fine-tunes: mean of the patches, fresh norm, linear."""
    encoder = tiny_encoder()
    classifier = new_classifier(encoder, ["a", "b", "c"], pooling="mean", drop_path=0.0, seed=0).eval()
    nn.init.normal_(classifier.head[1].weight)
    arguments = encoder.timm_arguments() | {"num_classes": 3, "fc_norm": True}
    model = timm.create_model(encoder.backbone_name, **arguments).eval()
    head = {"fc_norm": classifier.head[0], "head": classifier.head[1]}
    state = dict(classifier.encoder.backbone.state_dict())
    for name, module in head.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    model.load_state_dict(state)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(classifier(images), model(images))


def test_a_new_classifier_starts_from_the_encoder_and_leaves_it_alone():
    encoder = tiny_encoder()
    encoder.mean = (0.1, 0.2, 0.3)
    classifier = new_classifier(encoder, ["a", "b"], pooling="cls", drop_path=0.3, seed=0)
    assert classifier.encoder.position_table.requires_grad
    assert not encoder.position_table.requires_grad
    assert classifier.encoder.mean == encoder.mean
    assert 0.0 < classifier.head.weight.std().item() < 1e-4
    images = torch.randn(2, 3, 16, 16)
    ours, theirs = classifier.eval().encoder.encode(images).prefix, encoder.eval().encode(images).prefix
    assert torch.equal(ours, theirs)
    classifier.train()
    assert not torch.equal(classifier.encoder.encode(images).prefix, theirs)  # paths are dropped
    other = new_classifier(encoder, ["a", "b"], pooling="cls", drop_path=0.3, seed=1)
    assert not torch.equal(other.head.weight, classifier.head.weight)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder that passes for a run with an exported encoder, and what the protocol finds in it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text("method: {}\n")
    save_encoder(tiny_encoder(), folder / "encoder")
    protocol = Finetune(**TINY, baselines=("chance", "random_encoder"))
    return folder, evaluate(folder, protocol, DATA, device="cpu")


def test_finds_last_best_chance_and_the_same_from_scratch(run):
    folder, found = run
    rows = found["tables"]["epochs"]
    top1 = [row["top1"] for row in rows]
    assert found["metrics"] == {"top1": top1[-1], "top1_best": max(top1)}
    assert found["standard_errors"]["top1"] == rows[-1]["top1_error"]
    assert found["baselines"].keys() == {"chance", "random_encoder"}
    assert found["baselines"]["random_encoder"].keys() == found["metrics"].keys()
    assert "optimistic" in found["notes"][0]
    (work,) = (folder / "finetune").iterdir()
    assert load_classifier(work / "classifier").class_names == DATA.class_names
    assert (work / "random_encoder" / "classifier").is_dir()


def test_twice_gives_the_same_numbers_without_training_again(run, monkeypatch):
    folder, found = run
    monkeypatch.delattr(Supervised, "training_step")
    again = evaluate(folder, Finetune(**TINY), DATA, device="cpu", batch_size=5, num_workers=1)
    for name in ("metrics", "standard_errors", "tables"):
        assert again[name] == found[name]
    assert len((folder / "results.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("change", [{"protocol": Finetune(**TINY | {"epochs": 1})}, {"seed": 1}])
def test_other_work_has_a_folder_of_its_own(run, change):
    folder, _ = run
    before = set((folder / "finetune").iterdir())
    options = {"protocol": Finetune(**TINY), "data": DATA, "device": "cpu"} | change
    evaluate(folder, **options)
    assert len(set((folder / "finetune").iterdir()) - before) == 1


def test_without_a_folder_the_numbers_are_the_same_and_a_note_says_so(run):
    """On images that are cropped, augmented and erased, with the encoder's own normalisation."""
    result = Finetune(**TINY).run(Subject(tiny_encoder()), DATA)
    assert result.metrics == run[1]["metrics"]
    assert result.tables == run[1]["tables"]
    assert NOT_KEPT in result.notes
    assert NOT_KEPT not in run[1]["notes"]


def test_learns_what_can_be_learnt():
    settings = TINY | {"epochs": 5, "batch_size": 16, "base_lr": 0.05, "rand_augment": None, "mixup": 0.0}
    plain = Finetune(**settings, cutmix=0.0).run(Subject(tiny_encoder()), Coloured(train_size=64))
    assert plain.metrics["top1"] > 0.9
    assert plain.baselines["chance"]["top1"] < 0.6


def test_two_ranks_find_what_one_finds(tmp_path):
    run_on_two_ranks(SCRIPT, tmp_path)
    one = record(tmp_path / "one", devices=1)
    for rank in (0, 1):
        two = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert two["compute"]["ranks"] == 2
        assert two["metrics"] == one["metrics"]
        for actual, expected in zip(two["tables"]["epochs"], one["tables"]["epochs"], strict=True):
            assert actual == pytest.approx(expected, rel=1e-5)
    weights = [load_classifier(tmp_path / name / "classifier").state_dict() for name in ("one", "two")]
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\)"),
        ({"mixup": -1.0}, "mixup must be at least 0"),
        ({"batch_size": 9, "micro_batch": 3}, "micro_batch must be even where images are mixed, got 3"),
        ({"pooling": "cls_mean"}, "pooling must be 'mean' or 'cls'"),
        ({"min_scale": 0.0}, r"min_scale must be in \(0, 1\]"),
        ({"rand_augment": "9 times"}, "rand_augment must be written as timm does"),
        ({"random_erasing": 2.0}, r"erasing must be in \[0, 1\]"),
        ({"baselines": ("raw_pixels",)}, "baselines of Finetune are chance and random_encoder"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message) as error:
        Finetune(**options)
    assert "\n" not in str(error.value)


def test_unsuitable_data_and_encoders():
    with pytest.raises(UserError, match="needs one class per image"):
        Finetune(**TINY).run(Subject(tiny_encoder()), Lamps())
    without = tiny_encoder(backbone_args={"depth": 1, "class_token": False})
    with pytest.raises(UserError, match="needs a class token"):
        Finetune(**TINY, pooling="cls").run(Subject(without), DATA)


def test_micro_batches_that_devices_cannot_share(monkeypatch):
    monkeypatch.setattr(loop.ranks, "num_ranks", lambda: 3)
    with pytest.raises(UserError, match="2 micro-batches cannot be shared evenly by 3 devices"):
        loop.hardware_options(FineTuning(**TINY), Subject().compute)
