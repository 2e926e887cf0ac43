"""iBOT as it is trained: interrupted, on two ranks, without hidden patches, in half precision."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from ibot_runs import SHORT, TINY_IBOT, ByContent, one_batch
from torch import nn

from dppmask.errors import UserError
from dppmask.masks import DPPMask, RandomMask
from dppmask.models.checkpoint import load_encoder, load_model
from dppmask.models.ibot import IBOT
from dppmask.models.mae import MAE
from dppmask.training.run import pretrain
from two_ranks import run_on_two_ranks

SCRIPT = Path(__file__).with_name("ibot_ranks_script.py")
MAE_WITH_TEACHER = partial(MAE, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2, teacher="ema")


class PowerCut(BaseException):
    """What no code of the library catches."""


def cut():
    raise PowerCut


def equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.fixture
def ibot(tmp_path):
    """``ibot(name="run", **changes)``: pretrain for 12 optimiser steps of 2 micro-batches."""

    def train(name="run", **changes):
        return pretrain(run=tmp_path / name, **TINY_IBOT | changes)

    return train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return pretrain(run=tmp_path_factory.mktemp("ibot") / "run", **TINY_IBOT, mask=DPPMask(source="teacher"))


@pytest.mark.parametrize(
    ("hook", "count"),
    [("on_train_batch_start", 8), ("on_train_batch_end", 8), ("on_before_optimizer_step", 5)],
)
def test_cut_anywhere(ibot, undisturbed, interrupt, weights, lines, hook, count):
    changes = {"mask": DPPMask(source="teacher"), "save_last_every": 1}
    with pytest.raises(PowerCut):
        ibot(callbacks=[interrupt(hook, count, cut)], **changes)
    result = ibot(resume=True, **changes)
    equal(weights(result.path), weights(undisturbed.path))
    assert lines(result.path) == lines(undisturbed.path)
    exported = [(run.path / "encoder" / "model.safetensors").read_bytes() for run in (result, undisturbed)]
    assert exported[0] == exported[1]


def test_mae_with_an_ema_teacher_resumes(tiny, interrupt, weights):
    changes = {"method": MAE_WITH_TEACHER, "mask": DPPMask(source="teacher"), "save_last_every": 1}
    expected = tiny("undisturbed", **changes)
    with pytest.raises(PowerCut):
        tiny(callbacks=[interrupt("on_train_batch_start", 7, cut)], **changes)
    equal(weights(tiny(resume=True, **changes).path), weights(expected.path))
    assert any("teacher" in name for name in weights(expected.path)["state_dict"])


def test_the_run_gives_the_teacher_and_the_whole_method(undisturbed):
    model, encoder = load_model(undisturbed.path), load_encoder(undisturbed.path)
    equal(encoder.state_dict(), model.teacher.encoder.state_dict())
    different = [
        name
        for name, p in model.encoder.named_parameters()
        if not torch.equal(p, encoder.get_parameter(name))
    ]
    assert "backbone.pos_embed" in different  # learned positions
    assert model.loss.center.abs().max() > 0


def test_both_parts_of_the_loss_are_logged(undisturbed):
    assert undisturbed.metrics["loss"] == pytest.approx(
        undisturbed.metrics["cls_loss"] + undisturbed.metrics["patch_loss"]
    )


def test_prototypes_move_from_the_second_epoch_on(ibot, weights):
    name = "model.head.last.cls.direction"
    prototypes = [
        weights(ibot(f"{epochs}", epochs=epochs, warmup_epochs=0, method=SHORT).path)["state_dict"][name]
        for epochs in (1, 2)
    ]
    with_movement = ibot("free", epochs=1, warmup_epochs=0, method=partial(SHORT, freeze_last_layer_epochs=0))
    assert not torch.equal(*prototypes)
    assert not torch.equal(prototypes[0], weights(with_movement.path)["state_dict"][name])


def test_weight_decay_ends_where_it_should(ibot, weights):
    groups = weights(ibot(weight_decay=0.04, epochs=5).path)["optimizer_states"][0]["param_groups"]
    assert groups[0]["weight_decay"] == pytest.approx(0.4, abs=0.01)  # that of the last step
    assert groups[1]["weight_decay"] == 0


REFUSED = [
    ("out_dim", 0, "must be at least 1, got 0; iBOT uses"),
    ("out_dim", -1, "must be at least 1, got -1"),
    ("patch_out_dim", 0, "must be at least 1, got 0; leave it out to share out_dim"),
    ("head_hidden_dim", 0, "must be at least 1, got 0"),
    ("head_bottleneck_dim", 0, "must be at least 1, got 0"),
    ("freeze_last_layer_epochs", -1, "must be at least 0, got -1; 0 = not at all"),
    ("freeze_last_layer_epochs", 4, r"must be at most epochs \(3\), got 4; lower it or train longer"),
    ("num_global_crops", 0, "must be at least 1, got 0; iBOT uses 2"),
    ("num_local_crops", -1, "must be at least 0, got -1; 0 = none"),
    ("local_size", 0, "must be a multiple of patch_size 8, got 0; 8 would do"),
    ("local_size", 12, "must be a multiple of patch_size 8, got 12; 8 would do"),
    ("local_scale", [0.5, 0.2], r"must be \(low, high\) with 0 < low <= high <= 1, got \(0\.5, 0\.2\)"),
    ("local_scale", [0.0, 0.2], r"must be \(low, high\) .* would do"),
    ("local_scale", [0.1, 0.2, 0.3], r"must be \(low, high\)"),
    ("local_scale", 0.3, r"must be \(low, high\) .*got 0\.3"),
    ("light", -0.1, r"must be in \[0, 1\], got -0\.1; 1 is as in iBOT"),
    ("colour", 1.1, r"must be in \[0, 1\], got 1\.1; 1 is as in iBOT"),
    ("teacher_momentum", 1.1, r"must be in \[0, 1\], got 1\.1; 0\.996 is common"),
    ("teacher_momentum", math.nan, r"must be in \[0, 1\], got nan"),
    ("warmup_teacher_temp", 0.0, "must be positive and finite, got 0"),
    ("teacher_temp", 0.0, "must be positive and finite, got 0"),
    ("teacher_temp", math.nan, "must be positive and finite, got nan"),
    ("patch_teacher_temp", -0.07, r"must be positive and finite, got -0\.07"),
    ("student_temp", math.inf, "must be positive and finite, got inf"),
    ("warmup_teacher_temp_epochs", -1, "must be at least 0, got -1; 0 = not at all"),
    ("warmup_teacher_temp_epochs", 4, r"must be at most epochs \(3\), got 4; lower it or train longer"),
    ("center_momentum", 1.1, r"must be in \[0, 1\], got 1\.1; iBOT uses 0\.9"),
    ("reduction", "mean", "must say which views count, got 'mean'; choose from"),
    ("crop_scale", [1.0, 0.25], r"must be \(low, high\) .*got \(1\.0, 0\.25\); .* would do"),
    ("crop_scale", [0.25, 1.5], r"must be \(low, high\)"),
    ("weight_decay_end", -0.4, r"must be at least 0 and finite, got -0\.4; iBOT uses 0\.4"),
    ("clip_grad", math.nan, "must be above 0, got nan; leave it out not to clip"),
]


@pytest.mark.parametrize(("option", "value", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_numbers_out_of_range_are_refused_before_there_is_a_folder(ibot, tmp_path, option, value, message):
    changes = {option: value}
    if option not in TINY_IBOT and option != "crop_scale":
        changes = {"method": partial(TINY_IBOT["method"], **changes)}
    with pytest.raises(UserError, match=f"^{option} {message}") as error:
        ibot(epochs=3, **changes)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask_probability", [1e-9, 1.0])
def test_all_or_no_views_are_masked(ibot, lines, mask_probability):
    numbers = lines(ibot(mask_probability=mask_probability, log_every=1).path)
    assert all((line["patch_loss"] == 0) == (mask_probability < 1) for line in numbers)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_two_precisions(ibot, lines, precision):
    numbers = lines(ibot(precision=precision, mask=RandomMask(), log_every=1, base_lr=0.05, epochs=6).path)
    assert len(numbers) == 24
    assert all(torch.tensor(line["loss"]).isfinite() for line in numbers)


@pytest.mark.parametrize("mask", [ByContent(), DPPMask(source="teacher")], ids=["images", "teacher"])
def test_compiled_forward_trains_the_same(ibot, weights, monkeypatch, mask):
    """Traced as for any backend; generating code takes a minute and is left out here."""
    monkeypatch.setattr(
        IBOT, "compile", lambda model: nn.Module.compile(model, backend="eager", fullgraph=True)
    )
    options = one_batch(batch_size=8, epochs=1, mask=mask)
    plain, compiled = (ibot(str(how), **options | {"compile": how}) for how in (False, True))
    torch.testing.assert_close(weights(compiled.path), weights(plain.path), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder of the runs of ibot_ranks_script.py."""
    folder = tmp_path_factory.mktemp("ranks")
    run_on_two_ranks(SCRIPT, folder)
    return folder


@pytest.mark.parametrize("reduction", ["diluted", "masked"])
def test_two_ranks_equal_one_with_twice_the_batch(ibot, two_ranks, weights, lines, reduction):
    method = partial(SHORT, reduction=reduction)
    one = ibot(**one_batch(method=method, batch_size=8))
    for actual, expected in zip(lines(two_ranks / reduction), lines(one.path), strict=True):
        assert actual == pytest.approx(expected, rel=1e-4)
    actual, expected = (weights(run)["state_dict"] for run in (two_ranks / reduction, one.path))
    for name in ("model.loss.center", "model.loss.patch_center"):
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_the_comparison_of_ranks_can_fail(ibot, two_ranks, lines):
    """Half a batch has other centers, and another share of masked views."""
    method = partial(SHORT, reduction="masked")
    halves = ibot(**one_batch(method=method, batch_size=4, accumulate=2))
    pairs = list(zip(lines(two_ranks / "masked"), lines(halves.path), strict=True))
    assert any(abs(one["patch_loss"] / other["patch_loss"] - 1) > 1e-3 for one, other in pairs)


def test_two_ranks_resume(two_ranks, weights, lines):
    equal(weights(two_ranks / "resumed"), weights(two_ranks / "undisturbed"))
    assert lines(two_ranks / "resumed") == lines(two_ranks / "undisturbed")


def test_sharded_weights_learn_the_same(ibot, two_ranks, lines):
    one = ibot(**one_batch(batch_size=8, epochs=1))
    for actual, expected in zip(lines(two_ranks / "fsdp2"), lines(one.path), strict=True):
        assert actual == pytest.approx(expected, rel=1e-3)
