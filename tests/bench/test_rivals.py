"""A rival that computes something else makes every ratio worthless."""

import numpy as np
import pytest
import torch

from dppmask.bench import masks, rivals
from dppmask.bench.arithmetic import Shape
from dppmask.bench.inputs import Batch, patch_features
from dppmask.bench.step import MODES, RIVAL, build_rival, transformers_step
from dppmask.dpp import gaussian_kernel, greedy_map, naive
from dppmask.errors import UserError
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import seeded

SHAPES = [Shape(3, 30, 11, 8), Shape(2, 49, 49, 64), Shape(1, 5, 1, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_loops_pick_what_ours_picks(shape):
    kernels = gaussian_kernel(patch_features(shape).double())
    ours = greedy_map(kernels, shape.num_keep).items.tolist()
    assert rivals.torch_greedy(kernels, shape.num_keep).tolist() == ours
    assert [rivals.numpy_greedy(kernel, shape.num_keep) for kernel in kernels.numpy()] == ours


def test_both_loops_pick_what_the_textbook_picks():
    kernel = gaussian_kernel(patch_features(Shape(1, 12, 6, 5)).double())
    textbook, _ = naive.greedy_map(kernel[0], 6)
    assert rivals.torch_greedy(kernel, 6).tolist() == [textbook]
    assert rivals.numpy_greedy(kernel[0].numpy(), 6) == textbook


def test_numpy_loop_stops_where_no_gain_is_left():
    assert rivals.numpy_greedy(np.ones((5, 5)), 3) == [0]


def test_numpy_kernel_is_the_kernel():
    features = patch_features(Shape(1, 20, 5, 16)).double()
    expected = gaussian_kernel(features)[0]
    torch.testing.assert_close(torch.from_numpy(rivals.numpy_kernel(features[0].numpy())), expected)


def test_dppy_samples_k_items():
    kernel = gaussian_kernel(patch_features(Shape(1, 20, 5, 16)).double())[0].numpy()
    items = rivals.dppy_sample(kernel, 5, np.random.RandomState(0))
    assert len(set(items)) == 5


def test_nothing_is_measured_if_a_rival_picks_otherwise(monkeypatch):
    monkeypatch.setattr(rivals, "numpy_greedy", lambda kernel, k: list(range(k)))
    with pytest.raises(RuntimeError, match="NumPy loop pick different patches"):
        masks.check_equal_picks(SHAPES[0])


def tiny_mae(backbone="test_vit", **options) -> MAE:
    encoder = Encoder(backbone, image_size=32, patch_size=8, **options)
    return MAE(encoder, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2)


def test_transformers_model_is_as_large_and_learns():
    with seeded(0):
        ours = tiny_mae()
        theirs = rivals.transformers_mae(ours, 0.75).train()
        images = torch.randn(4, 3, 32, 32)
        before = theirs(images).loss.item()
        step = transformers_step(theirs, images, MODES["cpu"][RIVAL])
        for _ in range(20):
            step()
        assert theirs(images).loss.item() < before


def test_a_size_that_transformers_lacks_is_said_and_left_out(caplog):
    ours = tiny_mae(backbone_args={"reg_tokens": 4})
    with pytest.raises(UserError, match="transformers has no ViTMAE of the size of test_vit"):
        rivals.transformers_mae(ours, 0.75)
    assert build_rival(ours, 0.75) is None
    assert "its row is left out" in caplog.text


def test_a_list_of_jobs_holds_no_tensors():
    batch = Batch(SHAPES[0], torch.device("cpu"))
    assert "features" not in vars(batch)
    assert batch.kernels().shape == (3, 30, 30)
    assert batch.kernels().dtype == np.float64
