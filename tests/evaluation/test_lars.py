import numpy as np
import pytest
import torch
from timm.optim import Lars
from torch import nn

from dppmask.evaluation.lars import LARS
from dppmask.rng import fold_in


def gradients(shape, steps, *, key=0):
    return torch.randn(steps, *shape, generator=fold_in(31, key), dtype=torch.float64)


def trained(shape, updates, *, rates, **options):
    parameter = nn.Parameter(torch.randn(shape, generator=fold_in(32), dtype=torch.float64))
    optimizer = LARS([parameter], lr=0.0, **options)
    for gradient, rate in zip(updates, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def by_hand(shape, updates, *, rates, momentum=0.9, trust=0.001, weight_decay=0.0):
    """The published rule, number by number."""
    weight = torch.randn(shape, generator=fold_in(32), dtype=torch.float64).numpy().copy()
    speed = np.zeros_like(weight)
    for gradient, rate in zip(updates.numpy(), rates, strict=True):
        if weight.ndim > 1:
            gradient = gradient + weight_decay * weight
            lengths = np.sqrt((weight**2).sum()), np.sqrt((gradient**2).sum())
            if min(lengths) > 0:
                gradient = gradient * trust * lengths[0] / lengths[1]
        speed = momentum * speed + gradient
        weight = weight - rate * speed
    return torch.from_numpy(weight)


@pytest.mark.parametrize("shape", [(3, 4), (5,), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"momentum": 0.0, "trust": 0.02}], ids=str)
def test_updates_equal_the_rule_by_hand(shape, options):
    updates, rates = gradients(shape, 5), (0.5, 1.0, 2.0, 1.0, 0.1)
    expected = by_hand(shape, updates, rates=rates, **options)
    torch.testing.assert_close(trained(shape, updates, rates=rates, **options), expected)


def test_matrices_equal_timm_with_always_adapt():
    updates, rates = gradients((3, 4), 5), (1.0,) * 5
    parameter = nn.Parameter(torch.randn(3, 4, generator=fold_in(32), dtype=torch.float64))
    reference = Lars([parameter], lr=1.0, momentum=0.9, trust_coeff=0.001, always_adapt=True, eps=0.0)
    for gradient in updates:
        parameter.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(trained((3, 4), updates, rates=rates), parameter.detach())


def test_vectors_are_plain_momentum_sgd_and_matrices_are_not():
    for shape, equal in [((4,), True), ((2, 2), False)]:
        updates = gradients(shape, 4)
        parameter = nn.Parameter(torch.randn(shape, generator=fold_in(32), dtype=torch.float64))
        reference = torch.optim.SGD([parameter], lr=0.3, momentum=0.9)
        for gradient in updates:
            parameter.grad = gradient.clone()
            reference.step()
        ours = trained(shape, updates, rates=(0.3,) * 4)
        assert torch.allclose(ours, parameter.detach()) is equal


def test_the_length_of_a_gradient_does_not_matter():
    updates, rates = gradients((3, 4), 4), (1.0,) * 4
    torch.testing.assert_close(
        trained((3, 4), 1000.0 * updates, rates=rates), trained((3, 4), updates, rates=rates)
    )


def test_zero_weights_or_gradients_take_the_plain_step():
    parameter = nn.Parameter(torch.zeros(2, 2))
    optimizer = LARS([parameter], lr=1.0)
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), -torch.ones(2, 2))
    parameter.grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.full((2, 2), -1.9))


@pytest.mark.parametrize("options", [{"lr": -1.0}, {"lr": 1.0, "momentum": 1.0}, {"lr": 1.0, "trust": -0.1}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="got"):
        LARS([nn.Parameter(torch.ones(1))], **options)
