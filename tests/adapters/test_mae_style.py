import copy

import pytest
import torch
from torch import Tensor, nn

from dppmask.adapters import use_masks
from dppmask.masks import Coarse, DPPMask, MaskContext, RandomMask, num_masked_for
from dppmask.rng import fold_in, seeded


class SmallMAE(nn.Module):
    """A masked autoencoder as people write it: masks sampled by a method of the model."""

    def __init__(self, size: int = 24, patch_size: int = 4, dim: int = 16) -> None:
        super().__init__()
        num_patches = (size // patch_size) ** 2
        self.patch_size = patch_size
        self.embed = nn.Conv2d(3, dim, patch_size, patch_size)
        self.position = nn.Parameter(0.5 * torch.randn(1, num_patches, dim))
        self.encoder = nn.TransformerEncoderLayer(dim, 2, 32, dropout=0.0, batch_first=True)
        self.decoder = nn.TransformerEncoderLayer(dim, 2, 32, dropout=0.0, batch_first=True)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.predict = nn.Linear(dim, patch_size**2 * 3)

    def random_masking(self, x: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        batch, num_patches, dim = x.shape
        num_keep = int(num_patches * (1 - mask_ratio))
        order = torch.rand(batch, num_patches).argsort(1)
        visible = x.gather(1, order[:, :num_keep, None].expand(-1, -1, dim))
        mask = torch.ones(batch, num_patches).scatter(1, order[:, :num_keep], 0.0)
        return visible, mask, order.argsort(1)

    def forward(self, images: Tensor, mask_ratio: float = 0.75) -> tuple[Tensor, Tensor, Tensor]:
        x = self.embed(images).flatten(2).transpose(1, 2) + self.position
        visible, mask, ids_restore = self.random_masking(x, mask_ratio)
        visible = self.encoder(visible)
        hidden = self.mask_token.expand(len(x), x.shape[1] - visible.shape[1], -1)
        sequence = torch.cat([visible, hidden], dim=1)
        sequence = sequence.gather(1, ids_restore[:, :, None].expand_as(sequence))
        prediction = self.predict(self.decoder(sequence + self.position))
        target = nn.functional.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2)
        loss = ((prediction - target).square().mean(-1) * mask).sum() / mask.sum()
        return loss, prediction, mask


def model_and_images() -> tuple[SmallMAE, Tensor]:
    with seeded(0, 1):
        return SmallMAE(), torch.randn(5, 3, 24, 24)


def test_one_training_step_with_our_masks():
    model, images = model_and_images()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    with use_masks(model, DPPMask(), generator=fold_in(0, 2)) as masks:
        loss, _, mask = model(images, mask_ratio=0.75)
    loss.backward()
    optimizer.step()
    assert torch.equal(mask.bool(), masks.last_mask.masked)
    assert mask.sum(1).tolist() == [27.0] * 5
    assert (model.embed.weight.grad != 0).any()
    assert all(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_mask_is_the_strategys_own():
    model, images = model_and_images()
    with use_masks(model, DPPMask(0.1), generator=fold_in(0, 3)):
        _, _, mask = model(images)
    tokens = model.embed(images).flatten(2).transpose(1, 2) + model.position
    expected = DPPMask(0.1)(MaskContext.from_tokens(tokens), 27, generator=fold_in(0, 3))
    assert torch.equal(mask.bool(), expected.masked)


def test_patches_come_back_in_place():
    model, _ = model_and_images()
    x = torch.randn(5, 36, 16, generator=fold_in(0, 4))
    with use_masks(model, RandomMask(), generator=fold_in(0, 5)):
        visible, mask, ids_restore = model.random_masking(x, 0.5)
    padded = torch.cat([visible, torch.zeros(5, 18, 16)], dim=1)
    restored = padded.gather(1, ids_restore[:, :, None].expand_as(padded))
    assert mask.dtype == torch.float32
    assert ids_restore.dtype == torch.int64
    assert torch.equal(restored, x * (1 - mask)[:, :, None])


@pytest.mark.parametrize("mask_ratio", [0.0, 0.1, 0.6, 0.9])
def test_our_count_at_any_ratio(mask_ratio):
    model, images = model_and_images()
    with use_masks(model, RandomMask(), generator=fold_in(0, 6)):
        mask = model.random_masking(model.embed(images).flatten(2).transpose(1, 2), mask_ratio=mask_ratio)[1]
    expected = num_masked_for(mask_ratio, 36) if mask_ratio else 0
    assert mask.sum(1).tolist() == [expected] * 5


def test_the_model_gets_its_own_method_back():
    model, _ = model_and_images()
    original = model.random_masking
    state = model.state_dict().keys()
    installed = use_masks(model, DPPMask(), generator=fold_in(0, 7))
    assert model.state_dict().keys() == state
    assert model.random_masking != original
    installed.remove()
    installed.remove()
    assert model.random_masking == original
    assert "random_masking" not in vars(model)


def test_it_gets_it_back_after_an_error():
    model, _ = model_and_images()
    with pytest.raises(RuntimeError), use_masks(model, DPPMask(), generator=fold_in(0, 8)):
        model(torch.zeros(1, 7, 24, 24))
    assert "random_masking" not in vars(model)


def test_a_method_set_on_the_instance_comes_back():
    model, _ = model_and_images()
    model.random_masking = own = lambda x, mask_ratio: (x, None, None)
    with use_masks(model, RandomMask(), generator=fold_in(0, 9)):
        assert model.random_masking is not own
    assert model.random_masking is own


def test_a_copied_model_masks_by_itself():
    model, images = model_and_images()
    with use_masks(model, DPPMask(), generator=fold_in(0, 10)):
        twin = copy.deepcopy(model)
    assert "random_masking" not in vars(model)
    assert twin(images)[2].sum(1).tolist() == [27.0] * 5


def test_strategies_that_ask_for_the_grid():
    model, images = model_and_images()
    with use_masks(model, Coarse(RandomMask()), generator=fold_in(0, 11), grid=(6, 6)):
        mask = model(images, mask_ratio=20 / 36)[2]
    cells = mask.unflatten(1, (3, 2, 3, 2)).sum((2, 4))
    assert set(cells.unique().tolist()) == {0.0, 4.0}


def test_errors_say_what_to_do():
    model, _ = model_and_images()
    generator = fold_in(0, 12)
    with pytest.raises(TypeError, match="Linear has no random_masking"):
        use_masks(nn.Linear(1, 1), RandomMask(), generator=generator)
    with pytest.raises(ValueError, match="source='tokens'"):
        use_masks(model, DPPMask(source="pixels"), generator=generator)
    with (
        use_masks(model, RandomMask(), generator=generator),
        pytest.raises(ValueError, match=r"remove\(\) first"),
    ):
        use_masks(model, RandomMask(), generator=generator)
    with use_masks(model, RandomMask(), generator=generator), pytest.raises(ValueError, match="mask_ratio"):
        model.random_masking(torch.zeros(1, 36, 16), 1.0)
