"""Weights in the layout of the official MAE release, made up at random."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dppmask.models.positions import sincos_table
from dppmask.rng import fold_in


def make_official_state(
    *,
    side: int = 3,
    patch_size: int = 4,
    in_chans: int = 3,
    width: int = 48,
    depth: int = 2,
    hidden: int = 100,
    decoder_width: int = 32,
    decoder_depth: int = 1,
    decoder_hidden: int = 64,
    seed: int = 0,
) -> dict[str, Tensor]:
    """A state dict as facebookresearch/mae saves it."""
    generator = fold_in(seed)

    def normal(*shape: int) -> Tensor:
        return 0.2 * torch.randn(*shape, generator=generator)

    def norm(name: str, size: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + normal(size), f"{name}.bias": normal(size)}

    def linear(name: str, size_in: int, size_out: int) -> dict[str, Tensor]:
        return {f"{name}.weight": normal(size_out, size_in), f"{name}.bias": normal(size_out)}

    def block(name: str, size: int, inner: int) -> dict[str, Tensor]:
        return {
            **norm(f"{name}.norm1", size),
            **linear(f"{name}.attn.qkv", size, 3 * size),
            **linear(f"{name}.attn.proj", size, size),
            **norm(f"{name}.norm2", size),
            **linear(f"{name}.mlp.fc1", size, inner),
            **linear(f"{name}.mlp.fc2", inner, size),
        }

    state = {
        "cls_token": normal(1, 1, width),
        "pos_embed": sincos_table((side, side), width),
        "mask_token": normal(1, 1, decoder_width),
        "decoder_pos_embed": sincos_table((side, side), decoder_width),
        "patch_embed.proj.weight": normal(width, in_chans, patch_size, patch_size),
        "patch_embed.proj.bias": normal(width),
    }
    for index in range(depth):
        state |= block(f"blocks.{index}", width, hidden)
    state |= norm("norm", width) | linear("decoder_embed", width, decoder_width)
    for index in range(decoder_depth):
        state |= block(f"decoder_blocks.{index}", decoder_width, decoder_hidden)
    return (
        state
        | norm("decoder_norm", decoder_width)
        | linear("decoder_pred", decoder_width, patch_size**2 * in_chans)
    )


@pytest.fixture
def official_state() -> Callable[..., dict[str, Tensor]]:
    return make_official_state
