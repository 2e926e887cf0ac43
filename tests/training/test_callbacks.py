import io
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dppmask.errors import UserError
from dppmask.rng import fold_in
from dppmask.training.callbacks import Average, JsonMetrics, Progress, keep_lines, read_metrics


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def trainer():
    """What the callbacks read of Lightning's Trainer: 3 of 4 steps done, each of 2 micro-batches."""
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
    return SimpleNamespace(
        accumulate_grad_batches=2, num_training_batches=8, max_epochs=1, current_epoch=0, global_step=3,
        world_size=1, is_global_zero=True, loggers=[], optimizers=[optimizer],
    )  # fmt: skip


@pytest.fixture
def module():
    return SimpleNamespace(schedule=SimpleNamespace(images_per_step=16, total_steps=4))


def outputs(loss):
    return {"loss": None, "metrics": {"loss": torch.tensor(loss)}}


def test_a_line_is_the_mean_over_its_micro_batches(tmp_path, trainer, module):
    metrics = JsonMetrics(tmp_path / "metrics.jsonl", every_steps=3)
    metrics.on_train_start(trainer, module)
    for batch_idx, loss in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 9.0]):
        trainer.global_step = (batch_idx + 1) // 2
        metrics.on_train_batch_end(trainer, module, outputs(loss), None, batch_idx)
    (line,) = read_metrics(metrics.path)
    assert line == metrics.last
    assert (line["step"], line["epoch"], line["loss"], line["lr"]) == (3, 0, 4.0, 0.5)
    assert line["images_per_second"] > 0


def test_sums_travel_in_the_checkpoint(tmp_path, trainer, module):
    first, second = (JsonMetrics(tmp_path / name, every_steps=99) for name in "ab")
    for batch_idx, loss in enumerate([1.0, 2.0]):
        first.on_train_batch_end(trainer, module, outputs(loss), None, batch_idx)
    second.load_state_dict(first.state_dict())
    second.on_train_start(trainer, module)
    for batch_idx, loss in [(6, 4.0), (7, 5.0)]:  # the end of the epoch
        second.on_train_batch_end(trainer, module, outputs(loss), None, batch_idx)
    assert second.last["loss"] == 3.0


def test_lines_behind_the_restored_step_and_half_lines_go(tmp_path):
    path = tmp_path / "metrics.jsonl"
    keep_lines(path, 5)  # nothing there yet
    path.write_text(
        "".join(json.dumps({"step": step, "loss": 0.1 * step}) + "\n" for step in range(1, 9)) + '{"st'
    )
    keep_lines(path, 5)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4, 5]
    assert read_metrics(path)[2]["loss"] == 0.1 * 3
    path.write_text('{"st')
    keep_lines(path, 5)
    assert path.read_text() == ""


@pytest.mark.parametrize(("stream", "expected"), [(Terminal(), 3), (io.StringIO(), 2)])
def test_progress_shows_speed_and_time_left(tmp_path, trainer, module, stream, expected):
    metrics = JsonMetrics(tmp_path / "metrics.jsonl", every_steps=1)
    progress = Progress(metrics, interval=1000.0, stream=stream)
    progress.on_train_start(SimpleNamespace(global_step=1, is_global_zero=True), module)
    for step in (2, 3):
        trainer.global_step = step
        metrics.last = {"epoch": 0, "loss": 0.5, "lr": 1e-3, "images_per_second": 123.4}
        progress.on_train_batch_end(trainer, module, None, None, 1)
        progress.on_train_batch_end(trainer, module, None, None, 1)  # nothing new
    progress.on_train_end(trainer, module)
    text = stream.getvalue()
    assert text.count("epoch 1/1") == expected  # a file: the first, then one per interval, the last
    assert text.startswith("training for 3 of 4 steps, 16 images each\n")
    assert "step 3/4  loss 0.5000  lr 1.00e-03  123 images/s  left 0:00:0" in text
    assert text.endswith("\n")


def test_average_follows_its_recursion():
    model = nn.Linear(3, 2)
    average, trainer = Average(0.75), SimpleNamespace(accumulate_grad_batches=2)
    module = SimpleNamespace(model=model)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    average.on_train_start(None, module)
    for batch_idx in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.rand(parameter.shape, generator=fold_in(0, batch_idx)))
        average.on_train_batch_end(trainer, module, None, None, batch_idx)
        if batch_idx % 2:  # once per optimiser step
            expected = {n: 0.75 * expected[n] + 0.25 * p.detach() for n, p in model.named_parameters()}
    torch.testing.assert_close(average.weights, expected)
    resumed = Average(0.75)
    resumed.load_state_dict(average.state_dict())
    resumed.on_train_start(None, module)
    torch.testing.assert_close(resumed.weights, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_average_refuses_a_decay_outside_its_range(decay):
    with pytest.raises(UserError, match=r"ema must be in \(0, 1\)"):
        Average(decay)
