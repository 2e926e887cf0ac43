"""Counted operations against formulas: the blocks from their widths, as in Transformer.forward_flops."""

import pytest

from dppmask.bench.step_arithmetic import MAESize, Transformer, mae_step
from dppmask.models.build import build_model
from dppmask.training.arithmetic import flops_per_image

COMMON = {
    "backbone": "vit_tiny_patch16_224",
    "image_size": 224,
    "patch_size": 16,
    "position": "sincos",
    "backbone_args": {"depth": 4},
    "crop_scale": [0.2, 1.0],
    "mask_probability": 1.0,
}


@pytest.mark.parametrize(("mask_ratio", "visible"), [(0.75, 49), ([0.25, 0.75], 98)])
def test_mae_as_by_the_formula(mask_ratio, visible):
    config = COMMON | {"method": {"class_path": "dppmask.models.mae.MAE"}, "mask_ratio": mask_ratio}
    size = MAESize.of(build_model(config))
    expected = mae_step(size, batch=1, num_keep=visible).flops
    assert flops_per_image(config) == pytest.approx(expected, rel=1e-3)


def test_a_local_crop_of_ibot_is_one_more_forward_and_backward_pass():
    def counted(crops):
        arguments = {"num_local_crops": crops, "local_size": 96, "out_dim": 64}
        arguments |= {"head_hidden_dim": 32, "head_bottleneck_dim": 16}
        method = {"class_path": "dppmask.models.ibot.IBOT", "init_args": arguments}
        return flops_per_image(COMMON | {"method": method, "mask_ratio": 0.3})

    width, depth = 192, 4
    blocks = Transformer(width, depth, 12 * width**2 * depth).forward_flops(36 + 1)
    embedding = 2 * 36 * 16**2 * 3 * width
    head = 2 * (width * 32 + 32 * 32 + 32 * 16 + 16 * 64)  # of the class token
    assert (counted(3) - counted(1)) / 2 == pytest.approx(
        3 * (embedding + blocks + head) - embedding, rel=1e-3
    )
