"""Our masks inside Hugging Face's ViTMAE, through its ``noise`` argument; its code stays untouched.

    noise = vitmae_noise(model, pixel_values, DPPMask(), generator=generator)
    loss = model(pixel_values, noise=noise).loss

``transformers`` is not imported: the model comes from the caller.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dppmask.masks.base import Mask, MaskContext, MaskStrategy


def vitmae_noise(
    model: nn.Module, pixel_values: Tensor, strategy: MaskStrategy, *, generator: torch.Generator
) -> Tensor:
    """The noise with which a ViTMAE keeps exactly the patches that ``strategy`` leaves visible.

    The number of visible patches is transformers' own, :func:`vitmae_num_keep` of
    ``model.config.mask_ratio``.

    Args:
        model: ``ViTMAEForPreTraining`` or ``ViTMAEModel``.
        pixel_values: ``[B, C, H, W]``, as the model takes them.
        strategy: Any strategy that needs no more than images and tokens.
        generator: The source of randomness.

    Returns:
        Float32 ``[B, N]``.
    """
    height, width = vitmae_embeddings(model).patch_embeddings.patch_size
    grid = (pixel_values.shape[2] // height, pixel_values.shape[3] // width)
    context = MaskContext(pixel_values, grid, tokens=lambda: vitmae_tokens(model, pixel_values))
    config: Any = model.config
    num_masked = context.num_patches - vitmae_num_keep(context.num_patches, config.mask_ratio)
    mask = strategy(context, num_masked, generator=generator)
    return noise_of_mask(mask, mask_ratio=config.mask_ratio)


def noise_of_mask(mask: Mask, *, mask_ratio: float) -> Tensor:
    """Noise that sorts the visible patches of a mask before the hidden ones, float32 ``[B, N]``.

    Args:
        mask: Any mask whose rows hide equally many patches.
        mask_ratio: The ratio of the model that will sort the noise.

    Raises:
        ValueError: If the model would keep another number of patches than the mask, or the mask is ragged.
    """
    num_keep = vitmae_num_keep(mask.num_patches, mask_ratio)
    if mask.num_masked is not None and mask.num_masked != mask.num_patches - num_keep:
        raise ValueError(
            f"at mask_ratio {mask_ratio} transformers keeps int(N · (1 - mask_ratio)) = {num_keep} of "
            f"{mask.num_patches} patches, so the mask must hide {mask.num_patches - num_keep}; "
            f"got one that hides {mask.num_masked}"
        )
    return mask.ids_restore.float()


def vitmae_num_keep(num_patches: int, mask_ratio: float) -> int:
    """How many patches transformers keeps; floating-point arithmetic included: 9 of 100 at ratio 0.9."""
    return int(num_patches * (1 - mask_ratio))


@torch.no_grad()
def vitmae_tokens(model: nn.Module, pixel_values: Tensor) -> Tensor:
    """A ViTMAE's patch embeddings plus positions, ``[B, N, D]``, without gradient.

    Positions are interpolated where the image size is not the one the model was made for.
    """
    embeddings = vitmae_embeddings(model)
    # the convolution itself: whether the module around it takes other image sizes depends on the version
    patches = embeddings.patch_embeddings.projection(pixel_values).flatten(2).transpose(1, 2)  # [B, N, D]
    height, width = pixel_values.shape[2:]
    if (height, width) == tuple(embeddings.patch_embeddings.image_size):
        return patches + embeddings.position_embeddings[:, 1:]
    return patches + embeddings.interpolate_pos_encoding(patches, height, width)[:, 1:]


def vitmae_embeddings(model: nn.Module) -> Any:
    """The embedding module of ``ViTMAEForPreTraining`` or ``ViTMAEModel``.

    Raises:
        TypeError: If the model is neither.
    """
    embeddings = getattr(getattr(model, "vit", model), "embeddings", None)
    if embeddings is None or not hasattr(embeddings, "position_embeddings"):
        raise TypeError(f"model must be a transformers ViTMAE, got {type(model).__name__}")
    return embeddings
