"""The loop: what it minimises, at which rates, and that no interruption shows."""

import math
import os
import signal

import pytest
import torch
from coloured_images import Coloured, Lamps
from torch import nn
from tuning import DATA, SETTINGS, fresh, tune

from dppmask.data.augment import FineTuneTransform
from dppmask.data.module import TrainLoader
from dppmask.errors import UserError
from dppmask.evaluation.classifier import load_classifier, new_classifier
from dppmask.evaluation.supervised import FineTuning, loop
from dppmask.evaluation.supervised.targets import mixing, smoothed_targets, soft_cross_entropy
from dppmask.evaluation.supervised.validation import Validation
from dppmask.rng import seeded
from dppmask.training.checkpoints import SaveCheckpoints
from dppmask.training.supervised import Supervised


class PowerCut(BaseException):
    """What no code of the library catches."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, tune(folder)


def files(folder):
    """The final weights, byte for byte."""
    return [path.read_bytes() for path in sorted((folder / "classifier").rglob("*.safetensors"))]


def act_before(monkeypatch, owner, name, count, action):
    """Call ``action`` before the ``count``-th call of ``owner.name``."""
    original, calls = getattr(owner, name), []

    def called(*args, **kwargs):
        calls.append(name)
        if len(calls) == count:
            action()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


def cut():
    raise PowerCut


# 12 micro-batches, two an update; an epoch ends at 6 and 12, checkpoints come every second update.
@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [
        (Supervised, "training_step", 2),
        (Supervised, "training_step", 8),
        (Supervised, "on_before_optimizer_step", 3),
        (Validation, "on_train_epoch_end", 1),
        (Validation, "on_train_epoch_end", 2),
        (SaveCheckpoints, "on_train_epoch_end", 1),
        (loop, "save_classifier", 1),
        (loop, "write_json", 1),
        (loop.shutil, "rmtree", 1),
    ],
)
def test_cut_anywhere(tmp_path, undisturbed, monkeypatch, owner, name, count):
    with monkeypatch.context() as patched:
        act_before(patched, owner, name, count, cut)
        with pytest.raises(PowerCut):
            tune(tmp_path)
    found = tune(tmp_path)
    folder, expected = undisturbed
    assert files(tmp_path) == files(folder)
    assert (found.rows, found.chance) == (expected.rows, expected.chance)


def test_sigterm_saves_and_the_same_call_goes_on(tmp_path, undisturbed, monkeypatch):
    with monkeypatch.context() as patched:
        act_before(patched, Supervised, "training_step", 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt, match="stopped early and saved in"):
            tune(tmp_path, save_every=100)
    assert tune(tmp_path, save_every=100).rows == undisturbed[1].rows
    assert files(tmp_path) == files(undisturbed[0])


def test_finished_work_is_read(undisturbed, monkeypatch):
    folder, expected = undisturbed
    act_before(monkeypatch, Supervised, "training_step", 1, cut)
    again = tune(folder)
    assert (again.rows, again.last, again.best) == (expected.rows, expected.last, expected.best)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(again.classifier(images), expected.classifier(images))
    assert torch.equal(load_classifier(folder / "classifier")(images), expected.classifier(images))
    assert not (folder / "checkpoints").exists()


def test_other_seeds_give_other_weights(tmp_path, undisturbed):
    """The comparisons above can fail."""
    tune(tmp_path, seed=1)
    assert files(tmp_path) != files(undisturbed[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "holds a fine-tuning with other seed"),
        ({"settings": {"base_lr": 0.1}}, "other settings"),
        ({"identity": {"data": "others"}}, "other data"),
        ({"val": Coloured(24, 7).split("val")}, "other num_images"),
    ],
)
def test_other_work_is_not_mixed_in(undisturbed, change, message):
    with pytest.raises(UserError, match=message) as error:
        tune(undisturbed[0], **change)
    assert "\n" not in str(error.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("method: MAE\n")
    with pytest.raises(UserError, match="holds something else than a fine-tuning"):
        tune(tmp_path)


def test_rates_follow_the_formula_of_mae(tmp_path, monkeypatch):
    """As util/lr_sched.py and util/lr_decay.py state them, from the fractional epoch."""
    seen = []

    def record(self, optimizer):
        seen.append([(group["lr"], group["lr_scale"]) for group in optimizer.param_groups])

    monkeypatch.setattr(Supervised, "on_before_optimizer_step", record)
    tune(tmp_path, {"epochs": 3, "ema": None})
    peak, floor, steps = 0.05 * 8 / 256, 1e-5, 3
    assert len(seen) == 9
    for step, groups in enumerate(seen):
        epoch = step / steps
        wave = 0.5 * (1 + math.cos(math.pi * (epoch - 1) / (3 - 1)))
        expected = peak * epoch / 1 if epoch < 1 else floor + (peak - floor) * wave
        assert [rate for rate, _ in groups] == pytest.approx([expected * share for _, share in groups])
    assert sorted({share for _, share in seen[0]}) == pytest.approx([0.65**i for i in (3, 2, 1, 0)])


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.8, 0.0), (0.8, 1.0)])
def test_first_loss_is_that_of_the_first_batch(tmp_path, shares):
    mix = mixing(3, *shares, 0.1)
    one_update = {"epochs": 1, "warmup_epochs": 0, "batch_size": 24, "micro_batch": 24}
    found = tune(tmp_path, one_update, mix=mix, seed=5)
    transform = FineTuneTransform((16, 16))
    (batch,) = TrainLoader(DATA.split("train"), transform, batch_size=24, seed=5)
    classifier = fresh().train()
    with seeded(5, 0, 0):
        images, targets = mix(batch.images, batch.labels)
        logits = classifier(images)
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    assert found.rows[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_mixup_is_a_weighted_mean_of_images_and_targets():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(4, 3, 8, 8, generator=generator), torch.tensor([0, 2, 1, 1])
    with seeded(3):
        mixed, targets = mixing(3, 0.8, 0.0, 0.1)(images.clone(), labels)
    flat, flipped = images.flatten(), images.flip(0).flatten()
    (share,) = torch.linalg.lstsq((flat - flipped)[:, None], (mixed.flatten() - flipped)[:, None]).solution
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.flip(0))
    _, smooth = smoothed_targets(images, labels, num_classes=3, label_smoothing=0.1)
    torch.testing.assert_close(targets, share * smooth + (1 - share) * smooth.flip(0))
    assert 0.01 < share.item() < 0.99


def test_smoothed_targets_are_torchs_label_smoothing():
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(5, 3, generator=generator), torch.tensor([0, 2, 1, 1, 0])
    _, targets = smoothed_targets(torch.zeros(5), labels, num_classes=3, label_smoothing=0.1)
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)


def test_best_is_a_maximum_over_epochs_and_last_the_last(undisturbed):
    found = undisturbed[1]
    top1 = [row["top1"] for row in found.rows]
    assert (found.last["top1"][0], found.best["top1"][0]) == (top1[-1], max(top1))
    assert [row["epoch"] for row in found.rows] == [1, 2]
    labels = torch.tensor([DATA.split("val")[i].label for i in range(11)])
    assert found.chance["top1"] == pytest.approx(labels.bincount().max().item() / 11)


def test_several_labels_and_a_loss_of_ones_own(tmp_path):
    """What other protocols build on: targets are the labels, and the score is theirs."""
    data = Lamps(train_size=16, val_size=8)
    classifier = new_classifier(fresh().encoder, data.class_names, pooling="cls", drop_path=0.0, seed=0)
    seen = []

    def loss(logits, targets):
        seen.append(targets)
        return nn.functional.binary_cross_entropy_with_logits(logits, targets)

    found = tune(
        tmp_path,
        {"epochs": 1, "warmup_epochs": 0},
        classifier=classifier,
        train=data.split("train"),
        val=data.split("val"),
        loss=loss,
        score=lambda logits, labels: {"right": (((logits > 0) == labels).double().mean().item(), 0.0)},
        mix=None,
    )
    assert {(target.shape, target.dtype) for target in seen} == {(torch.Size([4, 4]), torch.float32)}
    assert found.last.keys() == {"right"}


def test_averaged_weights_are_tested_and_kept(tmp_path, monkeypatch):
    """After one update of rate 0.9 the average is a tenth of the way along."""
    weights = {}
    for name, ema in (("plain", None), ("averaged", 0.9)):
        change = {"epochs": 1, "warmup_epochs": 0, "batch_size": 24, "micro_batch": 24, "ema": ema}
        weights[name] = tune(tmp_path / name, change).classifier.head[1].weight
    start = fresh().head[1].weight
    torch.testing.assert_close(weights["averaged"], start + 0.1 * (weights["plain"] - start))
    assert not torch.equal(weights["plain"], start)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"warmup_epochs": 3}, r"warmup_epochs must be in \[0, epochs\], got 3 of 2"),
        ({"micro_batch": 3}, "micro_batch must divide batch_size 8, got 3"),
        ({"base_lr": 0.0}, "base_lr must be positive"),
        ({"min_lr": -1.0}, "min_lr must be at least 0"),
        ({"layer_decay": 1.5}, r"layer_decay must be in \(0, 1\]"),
        ({"weight_decay": math.inf}, "weight_decay must be at least 0 and finite"),
        ({"betas": (0.9, 1.0)}, "betas must be two numbers"),
        ({"clip_grad": 0.0}, "clip_grad must be above 0"),
        ({"ema": 1.0}, r"ema must be in \(0, 1\)"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(UserError, match=message):
        FineTuning(**SETTINGS | change)


def test_a_batch_larger_than_the_data(tmp_path):
    with pytest.raises(UserError, match="at most the number of training images, 24, got 32"):
        tune(tmp_path, {"batch_size": 32})
    assert not list(tmp_path.iterdir())


def test_gradients_are_clipped_jointly(tmp_path, monkeypatch):
    most = []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda parameters, max_norm: most.append(max_norm))
    tune(tmp_path, {"epochs": 1, "clip_grad": 0.5})
    assert most == [0.5] * 3
