import pytest
import torch
from coloured_images import Coloured, Lamps, Unlabelled, tiny_encoder
from torch import nn

from dppmask.errors import UserError
from dppmask.evaluation import Compute, Linear, Part, Subject
from dppmask.evaluation.augmented import largest_divisor
from dppmask.evaluation.lars import LARS
from dppmask.evaluation.linear import linear_head, update
from dppmask.evaluation.task import Task
from dppmask.rng import fold_in, seeded
from dppmask.training.schedule import warmup_cosine

# LARS grows weights by a share of their length: with these few updates it needs a rate far above that of MAE.
QUICK = {"epochs": 12, "warmup_epochs": 1, "batch_size": 30, "base_lr": 60.0, "pooling": "mean"}


def test_head_starts_as_in_mae():
    with seeded(61):
        norm, linear = linear_head(400, 50)
    assert isinstance(norm, nn.BatchNorm1d)
    assert (norm.affine, norm.eps, norm.momentum) == (False, 1e-6, 0.1)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert linear.weight.abs().max() < 0.06
    assert (linear.bias == 0).all()


def test_an_update_equals_the_formula():
    """Batch statistics, softmax gradient and the LARS step, written out."""
    generator = fold_in(62)
    features = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    with seeded(63):
        head = linear_head(5, 3).double()
    weight = head[1].weight.detach().clone()
    loss = update(head, LARS(head.parameters(), lr=0.0), features, labels, lr=2.0)
    standard = (features - features.mean(0)) / (features.var(0, correction=0) + 1e-6).sqrt()
    scores = standard @ weight.T
    error = (scores.softmax(1) - nn.functional.one_hot(labels, 3)) / 8
    gradient = error.T @ standard
    expected = weight - 2.0 * 0.001 * gradient * weight.norm() / gradient.norm()
    torch.testing.assert_close(head[1].weight.detach(), expected)
    torch.testing.assert_close(head[1].bias.detach(), -2.0 * error.sum(0))
    torch.testing.assert_close(loss, nn.functional.cross_entropy(scores, labels))


def trained(encoder, compute, **changes):
    protocol = Linear(**QUICK | {"epochs": 2} | changes)
    train, val = (Part.open(Coloured(train_size=70), name) for name in ("train", "val"))
    encoded = Task(train, val, train.images.class_names, protocol.view, compute).encode(encoder)
    return protocol.train_head(encoded, seed=0)


def test_large_batches_are_encoded_in_pieces():
    encoder = tiny_encoder()
    whole, rows = trained(encoder, Compute(batch_size=30))
    pieces, _ = trained(encoder, Compute(batch_size=7))  # 6 images at a time
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(pieces.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert whole[0].num_batches_tracked == 4  # two epochs of 70 // 30 updates
    assert len(rows) == 2


def test_the_rate_warms_up_and_decays_per_step():
    _, rows = trained(tiny_encoder(), Compute(), epochs=5, warmup_epochs=2)
    peak = 60.0 * 30 / 256
    expected = [peak * warmup_cosine(step, warmup_steps=4, total_steps=10) for step in (1, 3, 5, 7, 9)]
    assert [row["lr"] for row in rows] == pytest.approx(expected)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]


def test_the_encoder_stays_frozen():
    encoder = tiny_encoder().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    trained(encoder, Compute())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert encoder.training


def test_plain_classes_are_found_and_meaningless_ones_are_not():
    protocol = Linear(**QUICK | {"epochs": 20, "batch_size": 15}, baselines=())
    found = protocol.run(Subject(tiny_encoder()), Coloured(train_size=90))
    assert found.metrics["top1"] > 0.9
    losses = [row["loss"] for row in found.tables["epochs"]]
    assert losses[-1] < 0.7 * losses[0]
    control = protocol.run(Subject(tiny_encoder()), Coloured(train_size=90, val_size=60, meaningless=True))
    assert abs(control.metrics["top1"] - 1 / 3) < 3 * (2 / 9 / 60) ** 0.5


def test_equal_calls_give_equal_results_beside_their_baselines():
    def run(seed):
        return Linear(**QUICK | {"epochs": 2}).run(Subject(tiny_encoder()), Coloured(), seed=seed)

    one, same, other = run(0), run(0), run(1)
    assert one == same
    assert one.tables != other.tables
    assert set(one.baselines) == {"chance", "raw_pixels", "random_encoder"}
    assert one.baselines["raw_pixels"]["top1"] > 0.9


@pytest.mark.parametrize(
    ("number", "most", "expected"), [(16384, 100, 64), (30, 7, 6), (7, 100, 7), (13, 12, 1)]
)
def test_largest_divisor(number, most, expected):
    assert largest_divisor(number, most) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 5, "warmup_epochs": 5}, r"warmup_epochs must be in \[0, epochs\), got 5 of 5"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"base_lr": 0.0}, "base_lr must be positive"),
        ({"min_scale": 0.0}, r"min_scale must be in \(0, 1\]"),
        ({"baselines": ("luck",)}, "baseline 'luck' does not exist"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        Linear(**options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Lamps(), "several labels; use LinearFast"),
        (Unlabelled(), "one folder per class"),
        (Coloured(train_size=29), "batch_size must be at most the number of training images, 29, got 30"),
    ],
)
def test_unsuitable_data(data, message):
    with pytest.raises(UserError, match=message):
        Linear(**QUICK).run(Subject(tiny_encoder()), data)
