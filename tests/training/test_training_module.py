"""The step itself."""

from dataclasses import dataclass, field

import pytest
import torch

from dppmask.masks import DPPMask, Mask, MaskRatio, MaskStrategy, RandomMask
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded
from dppmask.training.module import Pretraining
from dppmask.training.schedule import Schedule
from dppmask.training.trainee import to_device


class Fixed(MaskStrategy):
    """Always the same mask, and reads nothing."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, context, num_masked, *, generator):
        return self.mask


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=fold_in(0))


@pytest.fixture
def model():
    with seeded(0):
        encoder = Encoder("test_vit", image_size=32, patch_size=8, backbone_args={"depth": 1})
        return MAE(encoder, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)


def gradients(model, strategy, images):
    """Of one step, by name of the parameter; and its mask."""
    schedule = Schedule(lr=1.0, weight_decay=0.0, warmup_steps=0, total_steps=1, images_per_step=3)
    module = Pretraining(model, strategy, MaskRatio(0.5), schedule, seed=0, loader=lambda **_: [])
    model.zero_grad(set_to_none=True)
    context = model.context(images)
    mask = module.draw_mask(context, step=0, slot=0)
    model(context, mask).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, mask


@pytest.mark.parametrize(
    "strategy", [RandomMask(), DPPMask(purge_ratio=0.1), DPPMask(source="pixels")], ids=str
)
def test_gradients_depend_on_the_mask_not_on_who_chose_it(model, images, strategy):
    actual, mask = gradients(model, strategy, images)
    expected, _ = gradients(model, Fixed(mask), images)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert actual["encoder.backbone.patch_embed.proj.weight"].norm() > 0


def test_gradients_differ_for_another_mask(model, images):
    """The comparison above can fail."""
    actual, mask = gradients(model, DPPMask(), images)
    expected, _ = gradients(model, Fixed(Mask.from_bool(mask.masked.flip(1))), images)
    name = "encoder.backbone.patch_embed.proj.weight"
    assert not torch.allclose(actual[name], expected[name])


def test_mask_is_a_function_of_seed_step_and_slot(model, images):
    module = Pretraining(
        model, RandomMask(), MaskRatio(0.5), Schedule(1.0, 0.0, 0, 1, 1), seed=3, loader=lambda **_: []
    )
    masks = {
        place: module.draw_mask(model.context(images), *place).masked
        for place in [(0, 0), (0, 1), (1, 0), (7, 2)]
    }
    again = module.draw_mask(model.context(images), 7, 2).masked
    assert torch.equal(masks[7, 2], again)
    assert len({tuple(mask.flatten().tolist()) for mask in masks.values()}) == 4
    expected = RandomMask()(model.context(images), 8, generator=fold_in(3, 7, 2)).masked
    assert torch.equal(again, expected)


def test_to_device_moves_frozen_dataclasses_of_dataclasses():
    @dataclass(frozen=True)
    class Inner:
        x: torch.Tensor

    @dataclass(frozen=True)
    class Outer:
        inner: Inner
        y: torch.Tensor | None = None
        names: list[str] = field(default_factory=list)

    moved = to_device(Outer(Inner(torch.zeros(2)), None, ["a"]), torch.device("meta"))
    assert moved.inner.x.is_meta
    assert (moved.y, moved.names) == (None, ["a"])
