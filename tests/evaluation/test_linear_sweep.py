import math

import pytest
import torch
import torch.nn.functional as F
from coloured_images import Coloured, Lamps, Unlabelled, tiny_encoder

from dppmask.errors import UserError
from dppmask.evaluation import Compute, LinearSweep, Part, Subject
from dppmask.evaluation.features import Features
from dppmask.evaluation.linear_sweep import BASE_LRS, Layers, half_cosine, hold_out, update
from dppmask.evaluation.task import Task
from dppmask.rng import fold_in
from dppmask.specs import build, describe

QUICK = {"epochs": 6, "batch_size": 30, "base_lrs": (1e-4, 0.3, 3.0), "pooling": "mean", "blocks": 1}


def encoded(protocol, data=None, **compute):
    data = data or Coloured(train_size=90)
    train, val = (Part.open(data, name) for name in ("train", "val"))
    return Task(train, val, train.images.class_names, protocol.view, Compute(**compute)).encode(
        tiny_encoder()
    )


def test_the_grid_is_that_of_ibot():
    assert len(BASE_LRS) == 45
    assert BASE_LRS[:3] == (0.0001, 0.0002, 0.0003)
    assert BASE_LRS[-1] == 9.0
    assert list(BASE_LRS) == sorted(BASE_LRS)


def test_every_layer_is_trained_as_if_it_were_alone():
    """Against torch's SGD on one linear layer for each rate and each set of images, over several steps."""
    generator, rates = fold_in(71), torch.tensor([0.01, 0.5, 4.0])
    batches = [
        (torch.randn(12, 5, generator=generator), torch.randint(4, (12,), generator=generator))
        for _ in range(6)
    ]
    counts = torch.stack([torch.rand(12, generator=generator) < 0.7, torch.ones(12).bool()])
    layers = Layers.start(2, 3, 5, 4, seed=0, device="cpu")
    optimizer = torch.optim.SGD([layers.weight, layers.bias], lr=1.0, momentum=0.9)
    alone = {}
    for twin in range(2):
        for index, rate in enumerate(rates.tolist()):
            linear = torch.nn.Linear(5, 4)
            linear.load_state_dict({"weight": layers.weight[twin, index], "bias": layers.bias[twin, index]})
            alone[twin, index] = linear, torch.optim.SGD(linear.parameters(), lr=rate, momentum=0.9), rate
    for step, (features, labels) in enumerate(batches):
        factor = half_cosine(step, len(batches))
        optimizer.param_groups[0]["lr"] = factor
        update(layers, optimizer, Features(features, torch.arange(12), labels), counts, rates)
        for (twin, _), (linear, sgd, rate) in alone.items():
            sgd.param_groups[0]["lr"] = rate * factor
            sgd.zero_grad()
            F.cross_entropy(linear(features[counts[twin]]), labels[counts[twin]]).backward()
            sgd.step()
    for (twin, index), (linear, *_) in alone.items():
        torch.testing.assert_close(layers.weight[twin, index], linear.weight, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(layers.bias[twin, index], linear.bias, atol=1e-5, rtol=1e-4)


def test_layers_start_as_in_ibot():
    layers = Layers.start(2, 3, 400, 50, seed=1, device="cpu")
    assert layers.weight.shape == (2, 3, 50, 400)
    assert layers.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert (layers.weight == layers.weight[:1, :1]).all()
    assert (layers.bias == 0).all()


def test_the_rate_falls_from_epoch_to_epoch():
    assert half_cosine(0, 100) == 1.0
    assert half_cosine(50, 100) == pytest.approx(0.5)
    assert half_cosine(99, 100) == pytest.approx((1 + math.cos(0.99 * math.pi)) / 2)


def test_choosers_never_learn_from_what_is_held_out():
    """With other labels on the held-out images the choosers are the same, and the tested layers are not."""

    class Relabelled(Coloured):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            label = (
                (sample.label + 1) % 3 if self.opened == "train" and index in (3, 50, 77) else sample.label
            )
            return type(sample)(sample.image, label=label, sample_id=index)

        def split(self, name):
            return Relabelled(self.train_size, self.val_size, opened=name)

    protocol = LinearSweep(**QUICK | {"epochs": 2})
    held_out = torch.tensor([3, 50, 77])
    one, other = (
        protocol.train(encoded(protocol, kind(90)), held_out, seed=0) for kind in (Coloured, Relabelled)
    )
    torch.testing.assert_close(one.weight[0], other.weight[0], rtol=0, atol=0)
    assert not torch.allclose(one.weight[1], other.weight[1])


def test_a_random_share_is_held_out():
    features = Features(torch.randn(50, 3), torch.arange(100, 150), torch.arange(50))
    held = hold_out(features, 0.2, seed=0)
    assert len(held.values) == 10
    assert len(held.sample_ids.unique()) == 10
    assert torch.equal(held.values, features.values[held.sample_ids - 100])
    assert torch.equal(held.labels, held.sample_ids - 100)
    assert not torch.equal(hold_out(features, 0.2, seed=1).sample_ids, held.sample_ids)
    assert len(hold_out(features, 1e-6, seed=0).values) == 1
    assert len(hold_out(features, 1 - 1e-6, seed=0).values) == 49


def test_a_diverged_layer_is_never_chosen():
    layers = Layers(torch.eye(3).repeat(2, 1, 1), torch.zeros(2, 3))
    layers.weight[0, 0, 0] = torch.nan
    labels = torch.zeros(5, dtype=torch.int64)
    features = Features(F.one_hot(labels, 3).float(), torch.arange(5), labels)
    assert layers.accuracies(features) == [0.0, 1.0]


def test_plain_classes_are_found_by_a_rate_that_learns_and_meaningless_ones_are_not():
    result = LinearSweep(**QUICK, held_out=0.2).run(Subject(tiny_encoder()), Coloured(train_size=90))
    assert result.metrics["top1"] > 0.9
    rates = result.tables["rates"]
    assert [row["base_lr"] for row in rates] == [1e-4, 0.3, 3.0]
    (chosen,) = [row for row in rates if row["chosen"]]
    assert chosen["base_lr"] > 1e-4
    assert chosen["held_out_top1"] == max(row["held_out_top1"] for row in rates)
    control = LinearSweep(**QUICK, baselines=()).run(
        Subject(tiny_encoder()), Coloured(train_size=90, val_size=60, meaningless=True)
    )
    assert abs(control.metrics["top1"] - 1 / 3) < 3 * (2 / 9 / 60) ** 0.5


def test_equal_calls_give_equal_results_beside_their_baselines():
    def run(seed):
        protocol = LinearSweep(**QUICK | {"epochs": 2})
        return protocol.run(Subject(tiny_encoder()), Coloured(meaningless=True), seed=seed)

    one, same, other = run(0), run(0), run(1)
    assert one == same
    assert one.tables != other.tables
    assert set(one.baselines) == {"chance", "raw_pixels", "random_encoder"}
    assert all(
        set(values) == {"top1"} for values in (one.metrics, one.standard_errors, *one.baselines.values())
    )


def test_large_batches_are_encoded_in_pieces():
    protocol = LinearSweep(**QUICK | {"epochs": 2})
    whole, pieces = (
        protocol.train(encoded(protocol, batch_size=size), torch.tensor([1, 2]), seed=0) for size in (30, 7)
    )
    torch.testing.assert_close(pieces.weight, whole.weight, atol=1e-3, rtol=1e-3)


def test_the_last_blocks_side_by_side():
    protocol = LinearSweep(**QUICK | {"epochs": 1, "blocks": 2, "pooling": "cls_mean", "baselines": ()})
    assert protocol.run(Subject(tiny_encoder()), Coloured()).metrics["top1"] > 0.0
    with pytest.raises(UserError, match="blocks must be at most the depth of the encoder, 2, got 4"):
        LinearSweep().run(Subject(tiny_encoder()), Coloured())


def test_kept_arguments_rebuild_it():
    protocol = LinearSweep(**QUICK, held_out=0.3, min_scale=0.5, baselines=("chance",))
    assert describe(build(describe(protocol))) == describe(protocol)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"base_lrs": ()}, "base_lrs must be one or several positive numbers"),
        ({"base_lrs": (0.1, 0.0)}, "base_lrs must be one or several positive numbers"),
        ({"held_out": 0.0}, r"held_out must be in \(0, 1\), got 0.0"),
        ({"min_scale": 1.5}, r"min_scale must be in \(0, 1\]"),
        ({"baselines": ("luck",)}, "baseline 'luck' does not exist"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        LinearSweep(**options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Lamps(), "several labels; use LinearFast"),
        (Unlabelled(), "one folder per class"),
        (Coloured(train_size=29), "batch_size must be at most the number of training images, 29, got 30"),
        (Coloured(train_size=1), "at least 2 training images, got 1"),
    ],
)
def test_unsuitable_data(data, message):
    with pytest.raises(UserError, match=message):
        LinearSweep(**QUICK).run(Subject(tiny_encoder()), data)
