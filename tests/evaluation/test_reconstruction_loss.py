"""The error on one common mask, against a plain loop over patches; the same patches for every run."""

from functools import partial

import pytest
import torch

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation.reconstruction_loss import ReconstructionLoss
from dppmask.evaluation.run import evaluate
from dppmask.masks import DPPMask, RandomMask
from dppmask.models.checkpoint import load_model
from dppmask.models.mae import MAE
from dppmask.rng import fold_in
from dppmask.training.run import pretrain

DATA = Scenes(size=32, train_size=8, val_size=6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mae"
    method = partial(MAE, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2, norm_pix_loss=True)
    tiny = {"backbone": "test_vit", "image_size": 32, "patch_size": 8, "epochs": 1, "batch_size": 4}
    pretrain(run=folder, data=DATA, method=method, mask=DPPMask(), num_workers=0, accelerator="cpu", **tiny)
    return folder


def test_it_is_the_mean_over_hidden_patches_of_every_image(run):
    record = evaluate(run, ReconstructionLoss(mask_ratio=0.5, batch_size=4), DATA, seed=3, device="cpu")
    model = load_model(run).eval()
    part = DATA.split("val")
    images = torch.stack([part[index].image for index in range(6)]).float().div(255)
    images = (images - torch.tensor(model.encoder.mean)[:, None, None]) / torch.tensor(model.encoder.std)[
        :, None, None
    ]
    losses = []
    with torch.no_grad():
        for first, size in ((0, 4), (4, 2)):
            context = model.context(images[first : first + size])
            mask = RandomMask()(context, 8, generator=fold_in(3, first // 4))
            prediction = model(context, mask).prediction
            truth = model.target(images[first : first + size])
            for row in range(size):
                errors = [(prediction[row, j] - truth[row, j]).square().mean() for j in mask.ids_mask[row]]
                losses.append(sum(errors) / len(errors))
    losses = torch.stack(losses)
    assert record["metrics"]["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert record["standard_errors"]["loss"] == pytest.approx(losses.std().item() / 6**0.5, rel=1e-4)


def test_another_seed_hides_other_patches(run):
    one, two, again = (
        evaluate(run, ReconstructionLoss(), DATA, seed=seed, device="cpu")["metrics"]["loss"]
        for seed in (0, 1, 0)
    )
    assert one == again != two


def test_what_it_cannot_score():
    with pytest.raises(UserError, match="ReconstructionLoss needs the decoder too; pass a run folder"):
        evaluate("test_vit", ReconstructionLoss(), DATA, image_size=32, device="cpu")
    with pytest.raises(UserError, match="num_images must be at least 2 for a standard error, got 1"):
        ReconstructionLoss(num_images=1)
