import inspect
import math

import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import nn

from dppmask.evaluation.asl import asymmetric_loss, asymmetric_potential
from dppmask.rng import fold_in

EXTREME = torch.tensor([-200.0, -40.0, -17.0, -1e-3, 0.0, 1e-3, 17.0, 40.0, 200.0])
SETTINGS = [(4.0, 0.0, 0.05), (4.0, 1.0, 0.05), (2.0, 1.0, 0.0), (0.0, 0.0, 0.0)]


def case():
    """Logits and bool targets ``[8, 9]``; the last two rows are extreme, once as positives, once not."""
    generator = fold_in(71)
    logits = torch.cat([3 * torch.randn(6, 9, generator=generator), EXTREME.expand(2, 9)])
    targets = torch.rand(8, 9, generator=generator) < 0.3
    targets[6:] = torch.tensor([[True], [False]])
    return logits, targets


def reference(logits, targets, gamma_neg, gamma_pos, margin):
    """Value, and gradient with the focal weight held fixed, entry by entry in plain Python numbers."""
    value, slopes = 0.0, []
    for x, positive in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p, rest = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(x))
        right = p if positive else min(rest + margin, 1.0)
        weight = (1 - right) ** (gamma_pos if positive else gamma_neg)
        value -= weight * math.log(max(right, 1e-8))
        moves = right >= 1e-8 and (positive or rest + margin < 1.0)
        slopes.append((-1 if positive else 1) * weight * p * rest / right if moves else 0.0)
    return value, torch.tensor(slopes, dtype=torch.float64).view(logits.shape)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("settings", SETTINGS)
def test_value_and_gradient_are_those_of_the_formula(settings, dtype):
    logits, targets = case()
    logits = logits.to(dtype).requires_grad_()
    gamma_neg, gamma_pos, margin = settings
    loss = asymmetric_loss(logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, margin=margin)
    (gradient,) = torch.autograd.grad(loss, logits)
    value, slopes = reference(logits.detach(), targets, *settings)
    assert loss.item() == pytest.approx(value, rel=1e-12 if dtype == torch.float64 else 1e-5)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-8}[dtype]
    torch.testing.assert_close(gradient.double(), slopes, rtol=tolerance, atol=tolerance * 1e-1)


def test_the_defaults_are_timms_with_the_settings_of_the_original_code():
    logits, targets = case()
    theirs = AsymmetricLossMultiLabel(gamma_pos=0, disable_torch_grad_focal_loss=True)
    averaged = "reduction" in inspect.signature(AsymmetricLossMultiLabel).parameters  # newer timm
    ours, other = (logits.clone().requires_grad_() for _ in range(2))
    expected = theirs(other, targets.float()) * (len(logits) if averaged else 1)
    loss = asymmetric_loss(ours, targets)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_no_gradient_flows_through_the_weights():
    """Finite differences of the whole loss, weights included, differ from the gradient."""
    logits = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    negative = torch.tensor([[False]])
    (gradient,) = torch.autograd.grad(asymmetric_loss(logits, negative), logits)
    up, down = (asymmetric_loss(logits.detach() + step, negative) for step in (1e-5, -1e-5))
    assert gradient.item() < 0.7 * ((up - down) / 2e-5).item()


def test_without_focus_and_margin_it_is_the_cross_entropy():
    logits, targets = case()
    plain = asymmetric_loss(logits[:6], targets[:6], gamma_neg=0.0, margin=0.0)
    expected = nn.BCEWithLogitsLoss(reduction="sum")(logits[:6], targets[:6].float())
    torch.testing.assert_close(plain, expected)


def test_the_gradient_is_that_of_the_potential():
    logits, targets = case()
    logits = torch.cat([logits, torch.linspace(-18, 30, 90).view(10, 9)]).double()  # ASL stands still below
    targets = torch.cat([targets, torch.arange(10)[:, None].expand(10, 9) % 2 == 0])
    logits[6] = logits[6].clamp(min=-18)
    one, two = (logits.clone().requires_grad_() for _ in range(2))
    asymmetric_loss(one, targets).backward()
    (asymmetric_potential(two, targets) * len(logits)).backward()
    torch.testing.assert_close(two.grad, one.grad, rtol=1e-9, atol=1e-14)


def test_the_potential_is_the_integral_of_its_slope():
    logits = torch.linspace(-12, 8, 20001, dtype=torch.float64)[:, None]
    for positive in (True, False):
        targets = torch.full_like(logits, positive, dtype=torch.bool)
        path = logits.clone().requires_grad_()
        asymmetric_loss(path, targets).backward()
        ends = [asymmetric_potential(logits[place : place + 1], targets[:1]) for place in (0, 20000)]
        climbed = torch.trapezoid(path.grad[:, 0], logits[:, 0])
        torch.testing.assert_close(ends[1] - ends[0], climbed, rtol=1e-6, atol=1e-6)
