"""iBOT's loss against loops over single distributions, written from its definition."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dppmask.errors import UserError
from dppmask.models.ibot import IBOTLoss
from dppmask.rng import fold_in

K, PATCH_K, B, N = 7, 5, 3, 4
OPTIONS = {
    "out_dim": K,
    "patch_out_dim": PATCH_K,
    "warmup_teacher_temp": 0.04,
    "teacher_temp": 0.07,
    "warmup_patch_teacher_temp": 0.03,
    "patch_teacher_temp": 0.06,
    "warmup_epochs": 4,
    "epochs": 9,
}
VIEWS = [pytest.param(2, 0, id="2+0"), pytest.param(2, 3, id="2+3"), pytest.param(1, 2, id="1+2")]


def make_loss(num_global=2, num_local=3, **changes):
    options = OPTIONS | {"num_global_crops": num_global, "num_local_crops": num_local} | changes
    return IBOTLoss(**options)


def make_batch(num_global=2, num_local=3, seed=0, dtype=torch.float64, batch=B):
    """Logits of a size that heads give, and masks with empty, part and full rows."""
    generator = fold_in(seed)

    def logits(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    rows = num_global * batch
    return {
        "student_cls": logits(rows, K).requires_grad_(),
        "student_patch": logits(rows, N, PATCH_K).requires_grad_(),
        "student_local_cls": logits(num_local * batch, K).requires_grad_() if num_local else None,
        "teacher_cls": logits(rows, K),
        "teacher_patch": logits(rows, N, PATCH_K),
        "masked": torch.rand(num_global, batch, N, generator=generator)
        < torch.rand(num_global, batch, 1, generator=generator),
    }


def softmax(z):
    """Of a list of numbers, by math alone."""
    top = max(z)
    exponentials = [math.exp(value - top) for value in z]
    return [value / sum(exponentials) for value in exponentials]


class Reference:
    """The definition in loops over views, images and patches; NumPy arrays of float64 as storage."""

    def __init__(self, num_global, num_local, reduction):
        self.num_global, self.num_local, self.reduction = num_global, num_local, reduction
        self.center, self.patch_center = np.zeros(K), np.zeros(PATCH_K)
        self.gradients = {}

    @staticmethod
    def temperature(start, end, epoch):
        ramp = np.linspace(start, end, OPTIONS["warmup_epochs"])
        return np.concatenate([ramp, np.full(OPTIONS["epochs"] - len(ramp), end)])[epoch]

    def target(self, logits, center, temperature):
        return softmax([(z - c) / temperature for z, c in zip(logits, center, strict=True)])

    def term(self, target, logits, gradient, weight):
        """Weighted cross-entropy of one distribution; adds its derivative, (p - t) / τ, to ``gradient``."""
        predicted = softmax([z / 0.1 for z in logits])
        gradient += weight * (np.array(predicted) - np.array(target)) / 0.1
        return -weight * sum(t * math.log(p) for t, p in zip(target, predicted, strict=True))

    def __call__(self, batch, epoch):
        arrays = {name: x.detach().double().numpy() for name, x in batch.items() if x is not None}
        cls = arrays["student_cls"]
        if self.num_local:
            cls = np.concatenate([cls, arrays["student_local_cls"]])
        cls_gradient, patch_gradient = np.zeros_like(cls), np.zeros_like(arrays["student_patch"])
        losses = (
            self.cls_loss(arrays, cls, cls_gradient, epoch),
            self.patch_loss(arrays, patch_gradient, epoch),
        )
        for b_center, logits in (("center", "teacher_cls"), ("patch_center", "teacher_patch")):
            mean = arrays[logits].reshape(-1, arrays[logits].shape[-1]).mean(0)
            setattr(self, b_center, 0.9 * getattr(self, b_center) + 0.1 * mean)
        rows = len(arrays["student_cls"])
        self.gradients = {"student_cls": cls_gradient[:rows], "student_patch": patch_gradient}
        if self.num_local:
            self.gradients["student_local_cls"] = cls_gradient[rows:]
        return losses

    def cls_loss(self, arrays, cls, gradient, epoch):
        tau = self.temperature(0.04, 0.07, epoch)
        views = self.num_global + self.num_local
        pairs = [(q, v) for q in range(self.num_global) for v in range(views) if q != v]
        total = 0.0
        for q, v in pairs:
            for b in range(B):
                target = self.target(arrays["teacher_cls"][q * B + b], self.center, tau)
                row = v * B + b
                total += self.term(target, cls[row], gradient[row], 1 / (len(pairs) * B))
        return total

    def patch_loss(self, arrays, gradient, epoch):
        tau = self.temperature(0.03, 0.06, epoch)
        masked = arrays["masked"].reshape(-1, N)
        num_views = int(masked.any(1).sum()) if self.reduction == "masked" else len(masked)
        total = 0.0
        for row in range(len(masked)):
            for i in np.flatnonzero(masked[row]):
                target = self.target(arrays["teacher_patch"][row, i], self.patch_center, tau)
                weight = 1 / (masked[row].sum() * num_views)
                total += self.term(target, arrays["student_patch"][row, i], gradient[row, i], weight)
        return total


TOLERANCES = [
    pytest.param(torch.float64, {"rtol": 1e-9, "atol": 1e-9}, id="float64"),
    pytest.param(torch.float32, {"rtol": 1e-5, "atol": 1e-5}, id="float32"),
]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("reduction", ["diluted", "masked"])
@pytest.mark.parametrize(("num_global", "num_local"), VIEWS)
def test_equals_the_definition_over_several_epochs(num_global, num_local, reduction, dtype, tolerance):
    loss = make_loss(num_global, num_local, reduction=reduction).to(dtype)
    reference = Reference(num_global, num_local, reduction)
    for step in range(16):
        epoch = step // 2
        batch = make_batch(num_global, num_local, seed=step, dtype=dtype)
        terms = loss(**batch, epoch=epoch)
        terms.loss.backward()
        expected = reference(batch, epoch)
        actual = torch.stack([terms.cls, terms.patch]).double()
        torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), **tolerance)
        torch.testing.assert_close(terms.loss, terms.cls + terms.patch)
        for name in ("center", "patch_center"):
            center = torch.from_numpy(getattr(reference, name))
            torch.testing.assert_close(getattr(loss, name).flatten().double(), center, **tolerance)
        for name, gradient in reference.gradients.items():
            actual = batch[name].grad.double()
            torch.testing.assert_close(actual, torch.from_numpy(gradient), **tolerance, msg=name)


@pytest.mark.parametrize("wrong", [{"center_momentum": 0.8}, {"student_temp": 0.11}, {"warmup_epochs": 5}])
def test_the_comparison_can_fail(wrong):
    loss, reference = make_loss(**wrong).double(), Reference(2, 3, "diluted")
    different = []
    for step in range(3):
        batch = make_batch(seed=step)
        terms = loss(**batch, epoch=step)
        expected = reference(batch, step)
        different += [
            abs(terms.cls.item() - expected[0]) > 1e-4,
            abs(terms.patch.item() - expected[1]) > 1e-4,
        ]
    assert any(different)


def test_centers_have_the_promised_shapes_and_move_after_the_loss():
    loss, batch = make_loss().double(), make_batch()
    assert (loss.center.shape, loss.patch_center.shape) == ((1, K), (1, 1, PATCH_K))
    first = loss(**batch, epoch=0)
    torch.testing.assert_close(loss.center, 0.1 * batch["teacher_cls"].mean(0, keepdim=True))
    torch.testing.assert_close(loss.patch_center, 0.1 * batch["teacher_patch"].mean((0, 1), keepdim=True))
    assert first.loss != loss(**batch, epoch=0).loss  # the second one is centred


def test_temperature_rises_linearly_and_stays():
    loss = make_loss(warmup_epochs=4, epochs=9)
    rising = [loss.temperature(epoch, (0.04, 0.07)) for epoch in range(9)]
    assert rising == pytest.approx([0.04, 0.05, 0.06, *[0.07] * 6])
    one = make_loss(warmup_epochs=1)
    assert [one.temperature(epoch, (0.04, 0.07)) for epoch in range(3)] == [0.04, 0.07, 0.07]
    none = make_loss(warmup_epochs=0)
    assert none.temperature(0, (0.04, 0.07)) == 0.07


@pytest.mark.parametrize("reduction", ["diluted", "masked"])
def test_a_batch_without_hidden_patches_has_patch_loss_zero_and_a_gradient(reduction):
    loss, batch = make_loss(reduction=reduction), make_batch(dtype=torch.float32)
    batch["masked"] = torch.zeros_like(batch["masked"])
    terms = loss(**batch, epoch=0)
    terms.loss.backward()
    assert terms.patch == 0
    assert torch.equal(batch["student_patch"].grad, torch.zeros_like(batch["student_patch"]))
    assert batch["student_cls"].grad.norm() > 0


def test_masked_reduction_does_not_depend_on_how_many_views_are_whole():
    batch = make_batch()
    batch["masked"][:] = torch.tensor([True, True, False, False])
    full = make_loss(reduction="masked").double()(**batch, epoch=0)
    batch["masked"][1] = False
    half = make_loss(reduction="masked").double()(**batch, epoch=0)
    diluted = make_loss().double()(**batch, epoch=0)
    torch.testing.assert_close(half.patch, full.patch_loss[:B, :2].mean())
    torch.testing.assert_close(diluted.patch, half.patch / 2)


def test_patch_loss_is_there_for_every_patch():
    batch = make_batch()
    terms = make_loss().double()(**batch, epoch=0)
    assert terms.patch_loss.shape == (2 * B, N)
    weights = batch["masked"].flatten(0, 1).double()
    of_views = (terms.patch_loss * weights).sum(1) / weights.sum(1).clamp(min=1)
    torch.testing.assert_close(terms.patch, of_views.mean())


def test_no_gradient_reaches_the_teacher():
    batch = make_batch()
    for name in ("teacher_cls", "teacher_patch"):
        batch[name].requires_grad_()
    loss = make_loss().double()
    loss(**batch, epoch=0).loss.backward()
    assert batch["teacher_cls"].grad is None
    assert batch["teacher_patch"].grad is None
    assert not loss.center.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_also_under_autocast_and_from_half_precision(dtype):
    batch = make_batch(dtype=dtype)
    wide = {n: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in batch.items()}
    expected = make_loss()(**wide, epoch=0)
    loss = make_loss()
    with torch.autocast("cpu", dtype):
        actual = loss(**batch, epoch=0)
    assert actual.loss.dtype == loss.center.dtype == torch.float32
    torch.testing.assert_close(actual.loss, expected.loss, rtol=0, atol=0)


def test_large_logits_stay_finite():
    batch = {n: x * 1e4 if n != "masked" else x for n, x in make_batch(dtype=torch.float32).items()}
    terms = make_loss()(**batch, epoch=0)
    assert terms.loss.isfinite()


def test_centers_travel_in_the_state():
    loss, batch = make_loss(), make_batch(dtype=torch.float32)
    loss(**batch, epoch=0)
    other = make_loss()
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(**batch, epoch=1).loss, loss(**batch, epoch=1).loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_global": 1, "num_local": 0}, "needs at least 1 global crop and 2 crops in all"),
        ({"warmup_patch_teacher_temp": 0.0}, "warmup_patch_teacher_temp must be positive and finite, got 0"),
        ({"warmup_epochs": 10}, "between 0 and the training's 9 epochs, got 10"),
        ({"center_momentum": 1.5}, r"center_momentum must be in \[0, 1\], got 1\.5"),
        ({"reduction": "mask"}, "got 'mask'; did you mean masked"),
    ],
)
def test_wrong_options(changes, message):
    with pytest.raises(UserError, match=message):
        make_loss(**changes)
