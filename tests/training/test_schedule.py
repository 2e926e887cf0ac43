import math

import pytest

from dppmask.training.schedule import Schedule, scaled_learning_rate, warmup_cosine


def test_learning_rate_scales_with_the_effective_batch():
    assert scaled_learning_rate(1.5e-4, 4096) == pytest.approx(2.4e-3)  # MAE's ViT-B and ViT-L


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 10), (1, 7), (5, 20), (20, 20)])
def test_warmup_is_linear_and_the_rest_falls_to_zero(warmup, total):
    factors = [warmup_cosine(step, warmup_steps=warmup, total_steps=total) for step in range(total + 1)]
    assert factors[:warmup] == [step / warmup for step in range(warmup)]
    assert factors[warmup] == 1.0
    assert all(a > b for a, b in zip(factors[warmup:], factors[warmup + 1 :], strict=False))
    assert warmup == total or factors[-1] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0.0), (20, 0.5), (40, 1.0), (220, 0.5), (400, 0.0)])
def test_equals_the_published_recipe_at_known_epochs(epoch, expected):
    steps = 312  # ImageNet at 4096 images a step
    factor = warmup_cosine(epoch * steps, warmup_steps=40 * steps, total_steps=400 * steps)
    assert factor == pytest.approx(expected, abs=1e-12)


def test_half_cosine_is_symmetric():
    factors = [warmup_cosine(step, warmup_steps=0, total_steps=30) for step in range(31)]
    assert [a + b for a, b in zip(factors, factors[::-1], strict=True)] == pytest.approx([1.0] * 31)
    assert factors[10] == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 3))


@pytest.mark.parametrize("warmup", [-1, 11])
def test_warmup_must_fit(warmup):
    with pytest.raises(ValueError, match="warm-up must be between 0"):
        warmup_cosine(0, warmup_steps=warmup, total_steps=10)


def make_schedule(**changes):
    options = {"lr": 2.0, "weight_decay": 0.04, "warmup_steps": 4, "total_steps": 20, "images_per_step": 1}
    return Schedule(**options | changes)


def test_rates_without_an_end_are_the_peak_times_the_factor_and_a_constant():
    schedule = make_schedule()
    for step in range(20):
        assert schedule.lr_at(step) == 2.0 * warmup_cosine(step, warmup_steps=4, total_steps=20)
        assert schedule.weight_decay_at(step) == 0.04


def test_learning_rate_rises_from_zero_and_ends_at_its_minimum():
    schedule = make_schedule(min_lr=0.5)
    rates = [schedule.lr_at(step) for step in range(21)]
    assert rates[:5] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    expected = [0.5 + 0.75 * (1 + math.cos(math.pi * step / 16)) for step in range(17)]
    assert rates[4:] == pytest.approx(expected)


def test_weight_decay_goes_up_on_half_a_cosine():
    schedule = make_schedule(weight_decay_end=0.4)
    values = [schedule.weight_decay_at(step) for step in range(21)]
    expected = [0.4 - 0.18 * (1 + math.cos(math.pi * step / 20)) for step in range(21)]
    assert values == pytest.approx(expected)
