"""What masks cost: passes are counted, weights are those that are stored, networks those that are there."""

import pytest
import torch
from torch import nn

from dppmask.bench.mask_cost import MaskCost, encoder_passes, num_networks
from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation.run import evaluate
from dppmask.masks import AttMask, DPPMask, Mask, MaskStrategy, RandomMask
from dppmask.models.checkpoint import save_encoder
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in
from dppmask.training.settings import plain

TINY = {
    "backbone": "test_vit",
    "image_size": 32,
    "patch_size": 8,
    "batch_size": 2,
    "repeats": 1,
    "mae": {"decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2},
    "ibot": {"out_dim": 16, "head_hidden_dim": 16, "head_bottleneck_dim": 8, "num_local_crops": 0},
}


class Critic(MaskStrategy):
    """Scores patches with a network that is trained, another that is not, and a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Sequential(nn.Linear(64, 4), nn.Linear(4, 1))
        self.fixed = nn.Linear(64, 1).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(()))
        self.needs = frozenset({"tokens"})

    def features(self, context):
        return (self.trained(context.tokens.detach()) * self.fixed(context.tokens.detach()))[..., 0].detach()

    def choose(self, features, noise, num_masked):
        return Mask.from_scores(noise + features, num_masked)


def measured(**options):
    return evaluate(None, MaskCost(**TINY | options), Scenes(), device="cpu")


@pytest.fixture(scope="module")
def record():
    return measured()


def values(record, name):
    """Of each mask."""
    found = {**record["metrics"], **record["timings"]}
    suffix = f"/{name}"
    return {key.removesuffix(suffix): value for key, value in found.items() if key.endswith(suffix)}


def test_mae_pays_a_pass_and_a_copy_for_masks_that_read_a_teacher(record):
    taught = {"DPPMask(source=teacher)", "AttMask"}
    passes, weights = values(record, "mae_extra_passes"), values(record, "mae_extra_weights")
    assert set(passes) == {"RandomMask", "BlockMask", "DPPMask", "KDPPMask", *taught}
    assert passes == pytest.approx({label: float(label in taught) for label in passes})
    assert weights == pytest.approx({label: float(label in taught) for label in passes})


def test_ibot_pays_no_pass_for_any(record):
    for name in ("ibot_extra_passes", "ibot_extra_weights", "learned_networks", "earlier_networks"):
        assert set(values(record, name).values()) == {0.0}


@pytest.mark.parametrize("method", ["mae", "ibot"])
def test_times_are_relative_to_random_masks(record, method):
    seconds, over_random = values(record, f"{method}_seconds"), values(record, f"{method}_over_random")
    assert over_random["RandomMask"] == 1.0
    assert over_random == pytest.approx({label: s / seconds["RandomMask"] for label, s in seconds.items()})


def test_networks_of_a_mask_are_counted():
    record = measured(masks=[Critic()])
    assert values(record, "learned_networks") == {"RandomMask": 0, "Critic": 2}
    assert values(record, "earlier_networks") == {"RandomMask": 0, "Critic": 1}
    encoder = sum(p.numel() for p in Encoder("test_vit", image_size=32, patch_size=8).parameters())
    own = (64 * 4 + 4) + (4 + 1) + (64 + 1) + 1
    assert values(record, "mae_extra_weights")["Critic"] == pytest.approx(own / encoder)


def test_a_teacher_that_was_trained_before_is_an_earlier_network(tmp_path):
    save_encoder(Encoder("test_vit", image_size=32, patch_size=8), tmp_path)
    record = measured(masks=[DPPMask(source="teacher")], teacher=str(tmp_path))
    assert values(record, "earlier_networks") == {"RandomMask": 0, "DPPMask(source=teacher)": 1}
    assert values(record, "mae_extra_passes")["DPPMask(source=teacher)"] == 1.0


@pytest.mark.parametrize(("num_masked", "share"), [(0, 1.0), (12, 5 / 17), (8, 9 / 17)])
def test_a_masked_image_is_a_pass_by_its_share_of_tokens(num_masked, share):
    model = MAE(Encoder("test_vit", image_size=32, patch_size=8), **TINY["mae"])
    images = torch.randn(3, 3, 32, 32, generator=fold_in(0))

    def step():
        context = model.context(images)
        model(context, RandomMask()(context, num_masked or 1, generator=fold_in(1)))

    def whole():
        model.encoder.encode(images)

    assert encoder_passes(model, step if num_masked else whole) == pytest.approx(3 * share)
    assert encoder_passes(model, lambda: None) == 0.0
    assert not model.encoder._forward_hooks


def test_options_are_kept_and_wrong_ones_refused():
    protocol = MaskCost(**TINY)
    assert plain({"protocol": protocol})["protocol"]["init_args"].items() >= TINY.items()
    for option in ("batch_size", "repeats"):
        with pytest.raises(UserError, match=f"{option} must be at least 1, got 0"):
            MaskCost(**{**TINY, option: 0})
    with pytest.raises(UserError, match=r"mask_ratio must be in \(0, 1\), got 1.0"):
        MaskCost(**TINY, mask_ratio=1.0)
    with pytest.raises(UserError, match=r"not AttMask\(variant=hint, exact=False\); use exact=True"):
        MaskCost(**TINY, masks=[AttMask("hint", exact=False)])


def test_parts_are_counted_once_however_many_weights_they_have():
    assert num_networks(Critic(), learned=True) == 2
    assert num_networks(Critic(), learned=False) == 1
    assert num_networks(RandomMask(), learned=True) == 0
