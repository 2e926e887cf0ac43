"""What a pre-training computes: its floating-point operations, counted while a step of one image is done."""

from collections.abc import Mapping
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dppmask.data.module import TrainLoader
from dppmask.data.scenes import Scenes
from dppmask.masks.base import num_masked_for
from dppmask.masks.uniform import RandomMask
from dppmask.models.build import build_model
from dppmask.rng import fold_in, seeded
from dppmask.training.run import ratio_of, transform_of

# The options that :func:`flops_per_image` reads.
COUNTED_OPTIONS = (
    "method",
    "backbone",
    "backbone_args",
    "image_size",
    "patch_size",
    "position",
    "crop_scale",
    "mask_ratio",
    "mask_probability",
)


def flops_per_image(config: Mapping[str, Any]) -> float:
    """Operations of the forward and the backward pass of one training image, with all its crops.

    Counted are matrix products, convolutions and attention, on the CPU in float32; a multiplication and an
    addition are two operations. The masks are uniformly random, at the middle of the run's mask ratios: what
    the choice of a mask costs itself is left out.

    Args:
        config: These options of :func:`~dppmask.training.run.pretrain` as plain data, or all of them.

    Raises:
        UserError: If the model cannot be built.
    """
    ratio = ratio_of(config)
    with seeded(0):
        model = build_model(config)
        source = Scenes(size=64, train_size=1, val_size=1).split("train")
        loader = TrainLoader(source, transform_of(config, model), batch_size=1, seed=0)
        images = next(iter(loader)).images
        # Not every version counts the fused kernels of a CPU; this one is made of matrix products.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            context = model.context(images)
            num_masked = num_masked_for((ratio.low + ratio.high) / 2, context.num_patches)
            mask = RandomMask()(context, num_masked, generator=fold_in(0))
            model(context, mask).loss.backward()
    return counter.get_total_flops()
