"""The effect we promise, for tokens before and after training: small objects stay visible."""

from functools import partial

import pytest
import torch

from dppmask.data.scenes import Scenes
from dppmask.evaluation.mask_measures import LOST_BELOW
from dppmask.masks import DPPMask, MaskContext, RandomMask, num_masked_for
from dppmask.models.checkpoint import load_encoder
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded
from dppmask.training.run import pretrain
from pasted_photographs import pasted_objects


@pytest.fixture(scope="module")
def photographs():
    return pasted_objects(96)


@pytest.fixture(scope="module")
def tokens(photographs):
    with seeded(71), torch.no_grad():
        encoder = Encoder("vit_small_patch16_224", backbone_args={"depth": 1})  # tokens come before any block
        return encoder.embed(photographs.images)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Photographs, and the tokens of an encoder trained as in the demo but shorter, on a 14 x 14 grid."""
    run = tmp_path_factory.mktemp("runs") / "dpp"
    pretrain(
        run=run,
        data=Scenes(train_size=256, val_size=8),
        method=partial(MAE, decoder_embed_dim=96, decoder_depth=2, decoder_num_heads=3),
        mask=DPPMask(),
        backbone="vit_tiny_patch16_224",
        backbone_args={"depth": 4},
        image_size=64,
        patch_size=8,
        epochs=6,
        batch_size=64,
        base_lr=1.5e-3,
        num_workers=0,
        accelerator="cpu",
    )
    photographs = pasted_objects(96, size=112)
    with torch.no_grad():
        return photographs, load_encoder(run, image_size=112).embed(photographs.images)


def lost(strategy, tokens, photographs, mask_ratio):
    """How many objects of all images and two masks each."""
    context = MaskContext(photographs.images, (14, 14), tokens=tokens)
    num_masked = num_masked_for(mask_ratio, 196)
    masks = [strategy(context, num_masked, generator=fold_in(72, number)) for number in range(2)]
    return sum((photographs.visible_share(mask.masked, (14, 14)) < LOST_BELOW).sum().item() for mask in masks)


@pytest.mark.parametrize("mask_ratio", [0.75, 0.9])
@pytest.mark.parametrize("purge_ratio", [0.0, 0.1])
def test_dpp_masks_lose_at_most_a_fifth_of_the_objects_random_masks_lose(
    tokens, photographs, mask_ratio, purge_ratio
):
    random = lost(RandomMask(), tokens, photographs, mask_ratio)
    assert random > 25
    assert lost(DPPMask(purge_ratio), tokens, photographs, mask_ratio) <= random / 5


@pytest.mark.parametrize("mask_ratio", [0.75, 0.9])
@pytest.mark.parametrize("purge_ratio", [0.0, 0.1])
def test_dpp_masks_lose_at_most_a_fifth_after_training(trained, mask_ratio, purge_ratio):
    photographs, tokens = trained
    random = lost(RandomMask(), tokens, photographs, mask_ratio)
    assert random > 25
    assert lost(DPPMask(purge_ratio), tokens, photographs, mask_ratio) <= random / 5


def test_a_purge_ratio_of_1_loses_what_random_masks_lose(tokens, photographs):
    counts = [lost(strategy, tokens, photographs, 0.75) for strategy in (DPPMask(1.0), RandomMask())]
    assert counts[0] == counts[1]
