"""Operations counted by formula against operations counted while the code runs."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dppmask.bench import arithmetic
from dppmask.bench.arithmetic import Machine, Shape, Work
from dppmask.bench.floors import standard_works
from dppmask.bench.step_arithmetic import MAESize, mae_size, mae_step
from dppmask.masks import RandomMask
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded


@pytest.mark.parametrize(
    ("backbone", "image_size", "num_keep"),
    [
        ("test_vit", (16, 24), 1),  # mlp_ratio 3
        ("vit_tiny_patch16_224", 32, 5),
        ("vit_medium_patch16_reg4_gap_256", 32, 7),  # registers and no class token
    ],
)
def test_step_counts_what_torch_counts(backbone, image_size, num_keep):
    with seeded(0):
        encoder = Encoder(backbone, image_size=image_size, patch_size=8, backbone_args={"depth": 2})
        model = MAE(encoder, decoder_embed_dim=32, decoder_depth=3, decoder_num_heads=2)
        images = torch.randn(2, 3, *encoder.image_size)
    context = model.context(images)
    mask = RandomMask()(context, encoder.num_patches - num_keep, generator=fold_in(0))
    # attention in its plain form: fused kernels work out the scores again in the backward pass
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(context, mask).loss.backward()
    size = MAESize.of(model)
    assert mae_step(size, batch=2, num_keep=num_keep).flops == counter.get_total_flops()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    assert size.num_weights == sum(weight.numel() for weight in weights)


def test_gaussian_kernel_counts_its_product():
    shape = Shape(batch=3, num_patches=10, num_keep=4, dim=7)
    x = torch.randn(3, 10, 7)
    with FlopCounterMode(display=False) as counter:
        x @ x.mT
    assert arithmetic.gaussian_kernel(shape).flops == counter.get_total_flops()


def test_greedy_counts_the_steps_of_its_loop():
    shape = Shape(batch=3, num_patches=10, num_keep=4, dim=7)
    batch, N, K, D = shape
    flops = sum(2 * N * pick + 3 * N for pick in range(K))  # projections; one scaling, square and subtraction
    assert arithmetic.greedy_from_kernel(shape).flops == batch * flops
    assert arithmetic.greedy_from_features(shape).flops == batch * (flops + K * 2 * N * D)


def test_exact_sampling_counts_its_phases():
    shape = Shape(batch=1, num_patches=10, num_keep=4, dim=7)
    _, N, K, _ = shape
    sampling = sum(
        2 * N * K + 2 * (2 * 2 * K * pick) for pick in range(K)
    )  # projection, and twice Gram-Schmidt
    spectral = 10 / 3 * N**3 + 2 * N * K + sampling
    assert arithmetic.exact_spectral(shape).flops == pytest.approx(spectral)
    few = N**3 + 6 * 4 / 3 * N * K**2
    assert arithmetic.exact_rejection(shape, draws=6).flops == pytest.approx(few)
    most = arithmetic.exact_rejection(shape._replace(num_keep=9), draws=6).flops
    assert most == pytest.approx(3 * N**3)


def test_standard_blocks_have_twelve_squares_of_weights():
    size = mae_size("vit_base_patch16_224")
    assert size.encoder.weights == 12 * 12 * 768**2
    assert size.decoder.weights == 8 * 12 * 512**2
    assert size.num_patches == 196


def test_sizes_are_read_without_making_weights():
    size = mae_size("vit_large_patch16_224")  # 1.3 GB, were they made
    assert 3.2e8 < size.num_weights < 3.4e8


def test_floor_is_the_slower_of_computing_and_moving():
    slow = Machine("slow", {torch.float32: 10.0}, bandwidth=2.0)
    assert Work(100, 4).floor(slow) == 10.0
    assert Work(100, 4).bound(slow) == "compute"
    assert Work(10, 4).floor(slow) == 2.0
    assert Work(10, 4).bound(slow) == "memory"


def test_work_grows_with_the_batch():
    once, twice = (standard_works(Shape(b, 196, 49, 384), ["test_vit"], step_batch=b) for b in (1, 2))
    for one, two in zip(once.values(), twice.values(), strict=True):
        assert two.flops == pytest.approx(2 * one.flops)
