"""``pretrain`` from the outside: what it learns, what it leaves, what it refuses."""

import logging
import os
import signal
import warnings
from contextlib import ExitStack
from functools import partial

import pytest
import timm
import torch
import yaml
from lightning.pytorch import Callback
from safetensors.torch import load_file
from torch import nn

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.masks import BlockMask, DPPMask, MaskContext, RandomMask
from dppmask.models.base import MaskedImageModel, MIMOutput
from dppmask.models.build import build_model
from dppmask.models.checkpoint import init_weights, load_encoder, load_model
from dppmask.models.mae import MAE
from dppmask.training.run import pretrain


def test_loss_falls_and_the_run_folder_is_complete(tiny, lines, capsys):
    result = tiny(epochs=10, save_every=4, mask=DPPMask(purge_ratio=0.3), log_every=1)
    losses = [line["loss"] for line in lines(result.path)]
    assert len(losses) == 40
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.05
    assert result.finished
    assert result.metrics["step"] == 40
    assert {path.name for path in result.path.iterdir()} == {
        "checkpoints", "config.yaml", "encoder", "environment.json", "log", "metrics.jsonl",
    }  # fmt: skip
    kept = {path.name for path in (result.path / "checkpoints").iterdir()}
    assert kept == {"last.ckpt", "epoch_0004.ckpt", "epoch_0008.ckpt"}
    encoder = timm.create_model(f"local-dir:{result.path / 'encoder'}", pretrained=True)
    assert encoder(torch.zeros(1, 3, 32, 32)).isfinite().all()
    output = capsys.readouterr()
    assert output.out == ""
    assert "images/s" in output.err


def test_metrics_lines_say_where_the_training_stands(tiny, lines):
    numbers = lines(tiny().path)  # a line every 3 steps and at the end of each epoch of 4
    assert [line["step"] for line in numbers] == [3, 4, 6, 8, 9, 12]
    assert [line["epoch"] for line in numbers] == [0, 0, 1, 1, 2, 2]
    assert all(set(line) == {"step", "epoch", "loss", "lr"} for line in numbers)


def test_config_repeats_the_run(tiny, weights, tmp_path):
    first = tiny(mask=DPPMask(purge_ratio=0.2), mask_ratio=(0.5, 0.8))
    config = yaml.safe_load((first.path / "config.yaml").read_text())
    assert config["mask"]["init_args"]["purge_ratio"] == 0.2
    again = pretrain(**config | {"run": tmp_path / "again"})
    torch.testing.assert_close(weights(again.path), weights(first.path), rtol=0, atol=0)


def test_workers_change_nothing(tiny, weights):
    here, there = tiny("here", num_workers=0), tiny("there", num_workers=2)
    torch.testing.assert_close(weights(here.path), weights(there.path), rtol=0, atol=0)


def test_callers_random_state_neither_matters_nor_changes(tiny, weights):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = tiny("first")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    torch.testing.assert_close(weights(tiny("second").path), weights(first.path), rtol=0, atol=0)


def test_log_and_warnings_are_as_before_afterwards(tiny):
    logger = logging.getLogger("lightning.pytorch")
    before = (logger.handlers, logger.propagate, logger.level, list(warnings.filters))
    result = tiny(epochs=1)
    assert (logger.handlers, logger.propagate, logger.level, list(warnings.filters)) == before
    assert "saved last.ckpt at step 4" in (result.path / "log").read_text()


def test_deterministic_kernels_are_used_in_training_alone(tiny, weights):
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, *_):
            seen.append(torch.are_deterministic_algorithms_enabled())

    free = tiny("free", epochs=1, callbacks=[Look()])
    strict = tiny("strict", epochs=1, callbacks=[Look()], deterministic=True)
    assert seen == [False] * 8 + [True] * 8
    assert not torch.are_deterministic_algorithms_enabled()
    torch.testing.assert_close(weights(strict.path), weights(free.path), rtol=0, atol=0)  # on a CPU all are


def test_callbacks_see_model_and_run_folder(tiny):
    seen = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, module):
            seen.append((type(module.model), type(module.strategy), trainer.default_root_dir))

    result = tiny(epochs=2, callbacks=[Look()])
    assert seen == [(MAE, RandomMask, str(result.path))] * 2


def test_init_from_starts_with_those_weights(tiny):
    first = tiny("first")
    second = tiny("second", init_from=str(first.path), epochs=1, base_lr=0.0)
    files = [run.path / "encoder" / "model.safetensors" for run in (first, second)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_lower_precision_stays_near(tiny):
    exact, mixed = tiny("exact"), tiny("mixed", precision="bf16-mixed")
    assert mixed.metrics["loss"] != exact.metrics["loss"]
    assert mixed.metrics["loss"] == pytest.approx(exact.metrics["loss"], rel=1e-2)


@pytest.mark.parametrize("mask", [RandomMask(), DPPMask()], ids=str)
def test_compiled_forward_trains_the_same(tiny, weights, monkeypatch, mask):
    """Traced as for any backend; generating code takes a minute and is left out here."""
    monkeypatch.setattr(
        MAE, "compile", lambda model: nn.Module.compile(model, backend="eager", fullgraph=True)
    )
    plain, compiled = tiny("plain", mask=mask), tiny("compiled", mask=mask, compile=True)
    torch.testing.assert_close(weights(compiled.path), weights(plain.path), rtol=1e-6, atol=1e-7)


def test_tensorboard_gets_the_numbers(tiny):
    pytest.importorskip("tensorboard")
    run = tiny(epochs=1, loggers=["tensorboard"]).path
    assert list((run / "tensorboard").glob("events.*"))


class Hungry(RandomMask):
    needs = frozenset({"teacher", "attention"})


class Modest(RandomMask):
    """Refuses to hide more than half, and counts the masks it drew."""

    def __init__(self):
        super().__init__()
        self.num_drawn = 0

    def choose(self, features, noise, num_masked):
        if num_masked > noise.shape[1] // 2:
            raise ValueError(f"at most half may be hidden, got {num_masked}")
        self.num_drawn += 1
        return super().choose(features, noise, num_masked)


class Poisoned(MAE):
    """Its loss, or only its gradient, is NaN at the given step."""

    def __init__(self, encoder, *, step=5, where="loss", **options):
        super().__init__(encoder, **options)
        self.step, self.where, self.now = step, where, 0

    def forward(self, context, mask):
        output = super().forward(context, mask)
        loss = output.loss
        if self.now == self.step:
            zero = 0.0 * next(self.parameters()).sum()
            loss = loss * torch.nan if self.where == "loss" else loss + torch.sqrt(zero * 0.0)
        return MIMOutput(loss, output.patch_loss, output.prediction)

    def after_step(self, progress):
        self.now += 1


REFUSED = {
    "no data": ({"data": None}, "data must be given"),
    "ratio 0": ({"mask_ratio": 0.0}, r"mask_ratio must be in \(0, 1\), got 0\.0"),
    "ratio 1": ({"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\), got 1\.0"),
    "ratio -1": ({"mask_ratio": -1.0}, r"mask_ratio must be in \(0, 1\), got -1\.0"),
    "ratio interval": ({"mask_ratio": (0.8, 0.5)}, "low <= high"),
    "ratio too high for a strategy": (
        {"mask": Modest(), "mask_ratio": (0.3, 0.8)},
        "mask Modest cannot be drawn: at most half may be hidden, got 13",
    ),
    "probability": ({"mask_probability": 0.5}, "mask_probability must be 1 with method MAE.*got 0.5"),
    "needs": ({"mask": Hungry()}, "mask Hungry reads attention, teacher, which method MAE does not provide"),
    "ragged mask": (
        {"mask": BlockMask(exact=False)},
        "mask BlockMask with exact=False .* which method MAE cannot take; use exact=True",
    ),
    "too few images": ({"batch_size": 17}, "34 images a step, but the data has 32"),
    "warm-up": ({"warmup_epochs": 4}, r"warmup_epochs must be between 0 and epochs \(3\), got 4"),
    "epochs": ({"epochs": 0}, "epochs must be at least 1, got 0"),
    "log_every": ({"log_every": 0}, "log_every must be at least 1, got 0"),
    "precision": ({"precision": "bf16-mixd"}, "precision must be one of .*did you mean bf16-mixed"),
    "fp16 on a CPU": ({"precision": "16-mixed"}, "precision 16-mixed needs a GPU; use bf16-mixed here"),
    "strategy": ({"strategy": "fsdp"}, "strategy must be one of .*did you mean fsdp2"),
    "logger": ({"loggers": ["tensorbord"]}, "loggers must be one of .*did you mean tensorboard"),
    "ema": ({"ema": 1.5}, r"ema must be in \(0, 1\), got 1\.5"),
    "ema and fsdp2": ({"ema": 0.9, "strategy": "fsdp2"}, "leave ema out"),
    "backbone": ({"backbone": "vit_smal_patch16_224"}, "vit_small_patch16_224"),
    "image size": ({"image_size": 30}, "image_size must be a multiple of patch_size 8, got 30"),
    "mask class": ({"mask": {"class_path": "dppmask.masks.dpp.DPPMsk"}}, "DPPMsk"),
    "mask argument": ({"mask": {"class_path": "dppmask.masks.DPPMask", "init_args": {"tau": 1}}}, "tau"),
    "method class": ({"method": {"class_path": "dppmask.models.mae.MEA"}}, "MEA"),
    "accelerator": ({"accelerator": "abacus"}, "abacus"),
    "no such device": ({"accelerator": "tpu"}, "Lightning refuses these options"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_options_are_refused_in_one_line_and_leave_nothing(tiny, tmp_path, change, message):
    with pytest.raises(UserError, match=message) as error:
        tiny(**change)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_trying_the_masks_leaves_the_strategy_as_it_was(tiny):
    counts = []

    class Look(Callback):
        def on_train_start(self, trainer, module):
            counts.append(module.strategy.num_drawn)

    tiny(epochs=1, mask=Modest(), mask_ratio=0.5, callbacks=[Look()])
    assert counts == [0]


def test_wandb_must_be_installed(tiny, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb is not installed; pip install wandb"):
        tiny(loggers=["wandb"])


def test_an_existing_run_is_not_overwritten(tiny, tmp_path):
    (tmp_path / "run").mkdir()  # an empty folder is no run
    tiny(epochs=1)
    with pytest.raises(UserError, match="exists already; go on with it by resume"):
        tiny(epochs=1)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="exists already"):
        tiny("file")


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_with_a_dump_and_the_last_good_weights(tiny, weights, where):
    method = partial(Poisoned, where=where, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)
    good = tiny("good", method=partial(method, step=99), save_last_every=1, epochs=3)
    with pytest.raises(UserError, match=f"^{where} is not finite at step 5 .*nonfinite-step-5.pt") as error:
        tiny(method=method, save_last_every=1)
    assert "\n" not in str(error.value)
    run = good.path.with_name("run")
    assert "not finite" in (run / "log").read_text()
    dump = torch.load(run / "nonfinite-step-5.pt", weights_only=True)
    assert (dump["step"], dump["epoch"]) == (5, 1)
    assert [len(micro_batch["sample_ids"]) for micro_batch in dump["micro_batches"]] == [4, 4]
    last = weights(run)
    assert last["global_step"] == 5
    torch.testing.assert_close(dump["state_dict"], last["state_dict"], rtol=0, atol=0)
    assert all(value.isfinite().all() for value in dump["state_dict"].values())
    assert not all(torch.equal(a, b) for a, b in zip(
        dump["state_dict"].values(), weights(good.path)["state_dict"].values(), strict=True
    ))  # fmt: skip


def test_full_disk_while_saving_keeps_the_previous_checkpoint(tiny, interrupt, full_disk, weights, lines):
    expected = tiny("undisturbed")
    with ExitStack() as later:
        fill = interrupt("on_train_batch_start", 8, lambda: later.enter_context(full_disk(10_000)))
        with pytest.raises(UserError, match=r"last\.ckpt: the disk is full \(the previous file is intact\)"):
            tiny(callbacks=[fill])
    run = expected.path.with_name("run")
    assert weights(run)["global_step"] == 3
    result = tiny(resume=True)
    torch.testing.assert_close(weights(result.path), weights(expected.path), rtol=0, atol=0)


def test_ema_is_what_is_exported(tiny, weights):
    result = tiny(epochs=1, ema=0.5, save_last_every=1)
    content = torch.load(result.path / "checkpoints" / "last.ckpt", weights_only=True)
    (average,) = [state["weights"] for name, state in content["callbacks"].items() if "Average" in name]
    name = "encoder.backbone.blocks.0.mlp.fc1.weight"
    exported = load_file(result.path / "encoder" / "model.safetensors")[
        name.removeprefix("encoder.backbone.")
    ]
    assert torch.equal(exported, average[name])
    assert not torch.equal(exported, content["state_dict"][f"model.{name}"])


def equal_weights(one, other):
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("finished", [True, False])
def test_who_reads_a_run_with_an_ema_gets_the_average(tiny, interrupt, finished):
    stop = interrupt("on_train_batch_end", 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    run = tiny(ema=0.9, callbacks=[] if finished else [stop]).path
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    average = content["callbacks"]["Average"]["weights"]
    whole = load_model(run)
    assert all(torch.equal(value, average[name]) for name, value in whole.named_parameters())
    assert equal_weights(load_encoder(run), whole.encoder)
    started = build_model(yaml.safe_load((run / "config.yaml").read_text()))
    init_weights(started, run)
    assert equal_weights(started, whole)
    raw = content["state_dict"]["model.encoder.backbone.blocks.0.mlp.fc1.weight"]
    assert not torch.equal(raw, whole.encoder.backbone.blocks[0].mlp.fc1.weight)


class Counting(MaskedImageModel):
    """A method of one number that may hide unequal counts and writes down what it sees."""

    provides = frozenset({"images"})
    seen: list = []  # noqa: RUF012

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def context(self, batch, *, progress=0.0, epoch=0):
        return MaskContext(batch, self.encoder.grid, progress, epoch)

    def forward(self, context, mask):
        self.seen.append(
            {
                "counts": mask.masked.sum(1).tolist(),
                "noise": torch.rand(1).item(),
                "progress": context.progress,
                "ids": context.sample_ids.tolist(),
                "crops": list(context.crops.shape),
            }
        )
        loss = sum(p.sum() for p in self.parameters() if p.requires_grad) * 1e-3
        return MIMOutput(loss, mask.masked.float())

    def after_step(self, progress):
        self.seen.append({"after_step": progress})


def test_what_a_method_sees(tiny):
    Counting.seen.clear()
    tiny(method=Counting, epochs=1, mask_ratio=(0.2, 0.8), mask_probability=0.7)
    steps = [Counting.seen[i : i + 3] for i in range(0, 12, 3)]
    assert [[sorted(event)[0] for event in step] for step in steps] == [
        ["counts", "counts", "after_step"]
    ] * 4
    assert [step[2]["after_step"] for step in steps] == [0.25, 0.5, 0.75, 1.0]
    batches = [event for step in steps for event in step[:2]]
    assert [batch["progress"] for batch in batches] == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert sorted(i for batch in batches for i in batch["ids"]) == list(
        range(32)
    )  # one epoch: each image once
    counts = [count for batch in batches for count in batch["counts"]]
    assert min(counts) == 0  # whole images
    assert len(set(counts)) > 5
    assert len({batch["noise"] for batch in batches}) == 8  # the model's own randomness differs in every slot
    assert batches[0]["crops"] == [4, 5]


class Equal(Counting):
    needs_equal_counts = True


def test_one_ratio_per_step_where_counts_must_be_equal(tiny):
    Counting.seen.clear()
    tiny(method=Equal, data=Scenes(size=32, train_size=64, val_size=8), epochs=1, mask_ratio=(0.1, 0.9))
    counts = [set(event["counts"]) for event in Counting.seen if "counts" in event]
    assert all(len(count) == 1 for count in counts)
    assert counts[0::2] == counts[1::2]  # both micro-batches of a step
    assert len({min(count) for count in counts}) > 3
