import pytest
import torch
from torch import nn

from dppmask.adapters import noise_of_mask, vitmae_noise, vitmae_num_keep, vitmae_tokens
from dppmask.masks import DPPMask, MaskContext, RandomMask
from dppmask.rng import fold_in, seeded

transformers = pytest.importorskip("transformers")

STRATEGIES = [RandomMask(), DPPMask(), DPPMask(0.0, source="pixels")]


def vitmae(*, mask_ratio: float = 0.75) -> nn.Module:
    config = transformers.ViTMAEConfig(
        image_size=40,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
        mask_ratio=mask_ratio,
    )
    with seeded(0, 1):
        return transformers.ViTMAEForPreTraining(config)


def images(*, height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.randn(3, 3, height, width, generator=fold_in(0, 2))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_transformers_keeps_exactly_our_patches(strategy):
    model, pixel_values = vitmae(), images()
    noise = vitmae_noise(model, pixel_values, strategy, generator=fold_in(0, 3))
    mask = model(pixel_values, noise=noise).mask
    context = MaskContext(pixel_values, (10, 10), tokens=vitmae_tokens(model, pixel_values))
    expected = strategy(context, 75, generator=fold_in(0, 3))
    assert torch.equal(mask.bool(), expected.masked)


def test_one_training_step():
    model, pixel_values = vitmae(), images()
    noise = vitmae_noise(model, pixel_values, DPPMask(), generator=fold_in(0, 4))
    model(pixel_values, noise=noise).loss.backward()
    weight = model.vit.embeddings.patch_embeddings.projection.weight
    before = weight.detach().clone()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert (weight.grad != 0).any()
    assert not torch.equal(weight, before)


def test_tokens_are_what_transformers_encodes():
    model, pixel_values = vitmae(mask_ratio=0.0), images()
    embeddings = model.vit.embeddings
    expected = embeddings(pixel_values, noise=torch.arange(100.0).expand(3, -1))[0][:, 1:]
    tokens = vitmae_tokens(model, pixel_values)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=0)
    torch.testing.assert_close(vitmae_tokens(model.vit, pixel_values), tokens, rtol=0, atol=0)
    assert not tokens.requires_grad


def test_another_image_size():
    model, pixel_values = vitmae(), images(height=24, width=48)
    noise = vitmae_noise(model, pixel_values, DPPMask(), generator=fold_in(0, 5))
    assert noise.shape == (3, 72)
    mask = model(pixel_values, noise=noise, interpolate_pos_encoding=True).mask
    assert mask.sum(1).tolist() == [54.0] * 3
    full = vitmae(mask_ratio=0.0).vit.embeddings
    order = torch.arange(72.0).expand(3, -1)
    expected = full(pixel_values, noise=order, interpolate_pos_encoding=True)[0][:, 1:]
    torch.testing.assert_close(vitmae_tokens(vitmae(), pixel_values), expected, rtol=0, atol=0)


def test_the_count_is_transformers_own():
    """At ratio 0.9, 100 · (1 - 0.9) is a little under 10 in floating point, and transformers keeps 9."""
    model, pixel_values = vitmae(mask_ratio=0.9), images()
    assert vitmae_num_keep(100, 0.9) == 9
    noise = vitmae_noise(model, pixel_values, DPPMask(), generator=fold_in(0, 6))
    assert model(pixel_values, noise=noise).mask.sum(1).tolist() == [91.0] * 3


def test_a_mask_of_another_count_is_refused():
    context = MaskContext.from_tokens(torch.zeros(2, 100, 4))
    mask = RandomMask()(context, 90, generator=fold_in(0, 7))
    with pytest.raises(ValueError, match="must hide 91; got one that hides 90"):
        noise_of_mask(mask, mask_ratio=0.9)
    ragged = RandomMask()(context, torch.tensor([90, 80]), generator=fold_in(0, 7))
    with pytest.raises(ValueError, match="different number of patches"):
        noise_of_mask(ragged, mask_ratio=0.9)


def test_another_model_is_refused():
    with pytest.raises(TypeError, match="must be a transformers ViTMAE, got Linear"):
        vitmae_tokens(nn.Linear(1, 1), images())
