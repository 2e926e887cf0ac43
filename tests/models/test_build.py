from functools import partial

import pytest
import torch

from dppmask import specs
from dppmask.errors import UserError
from dppmask.models.build import build_model, encoder_arguments
from dppmask.models.mae import MAE
from dppmask.rng import seeded

ENCODER = {"backbone": "test_vit", "image_size": 32, "patch_size": 8, "backbone_args": {"depth": 1}}
SMALL_MAE = partial(MAE, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2, norm_pix_loss=False)


@pytest.mark.parametrize("method", [SMALL_MAE, specs.describe(SMALL_MAE)], ids=["partial", "spec"])
def test_method_as_partial_or_spec(method):
    model = build_model(ENCODER | {"method": method, "epochs": 7})
    assert type(model) is MAE
    assert not model.norm_pix_loss
    assert model.decoder.mask_token.shape[-1] == 16
    assert model.encoder.depth == 1


def test_method_as_class():
    model = build_model(ENCODER | {"method": MAE})
    assert (len(model.decoder.blocks), model.decoder.mask_token.shape[-1], model.norm_pix_loss) == (
        8,
        512,
        True,
    )


def test_equal_seeds_give_equal_weights():
    def weights(seed):
        with seeded(seed):
            return build_model(ENCODER | {"method": SMALL_MAE}).state_dict()

    one, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["decoder.mask_token"], other["decoder.mask_token"])


def test_unset_keys_keep_the_defaults_of_the_encoder():
    assert encoder_arguments({"backbone_args": None, "patch_size": 8, "method": MAE}) == {"patch_size": 8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"method": {"class_path": "dppmask.models.mae.MEA"}},
            "must name an importable class, got 'dppmask.models.mae.MEA'",
        ),
        ({"method": {"class_path": "dppmask.models.mae.MAE", "init_args": {"depth": 3}}}, "'depth'"),
        ({"backbone": "test_vot"}, "did you mean test_vit"),
        ({"image_size": 33}, "image_size must be a multiple of patch_size 8"),
    ],
)
def test_wrong_configuration(change, message):
    with pytest.raises(UserError, match=message):
        build_model(ENCODER | {"method": SMALL_MAE} | change)
