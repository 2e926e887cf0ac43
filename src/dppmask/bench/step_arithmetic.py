"""What a training step of an MAE must cost at least."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from dppmask.bench.arithmetic import Work
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE

# Per weight: AdamW reads it, its gradient and two moments in float32, and writes all but the gradient.
OPTIMIZER_BYTES = 28


class Transformer(NamedTuple):
    """A stack of blocks.

    Attributes:
        width: Embedding dimension.
        depth: Number of blocks.
        weights: Entries of all weight matrices: ``12 width²`` a block, where the perceptron is 4 times wider.
    """

    width: int
    depth: int
    weights: int

    def forward_flops(self, tokens: int) -> float:
        """Of one sequence: every weight twice a token, and the two products of attention, ``4 T² width``."""
        return 2 * tokens * self.weights + 4 * tokens**2 * self.width * self.depth


class MAESize(NamedTuple):
    """What decides the operations of an MAE.

    Attributes:
        encoder: Sees the visible patches.
        decoder: Sees all patches.
        num_prefix: P, class and register tokens.
        num_patches: N.
        patch_numbers: p² · C, numbers in a patch.
        num_weights: Trained weights, all of them.
    """

    encoder: Transformer
    decoder: Transformer
    num_prefix: int
    num_patches: int
    patch_numbers: int
    num_weights: int

    @classmethod
    def of(cls, model: MAE) -> "MAESize":
        """Read off a model."""
        encoder, decoder = model.encoder, model.decoder
        return cls(
            Transformer(encoder.embed_dim, encoder.depth, _matrix_entries(encoder.backbone.blocks)),
            Transformer(decoder.embed.out_features, len(decoder.blocks), _matrix_entries(decoder.blocks)),
            encoder.num_prefix,
            encoder.num_patches,
            encoder.patch_size**2 * encoder.in_chans,
            sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        )


def mae_step(size: MAESize, *, batch: int, num_keep: int, dtype: torch.dtype = torch.bfloat16) -> Work:
    """Matrix products of forward and backward, and the optimiser's traffic.

    The backward pass of a product is two products of its size, one for the input and one for the weights; the
    patch embedding has no use for the first. So a step is three times the forward pass less one patch
    embedding. Attention that is worked out again in the backward pass counts once.
    """
    embedding = 2 * size.num_patches * size.patch_numbers * size.encoder.width
    visible, everywhere = size.num_prefix + num_keep, size.num_prefix + size.num_patches
    forward = (
        embedding
        + size.encoder.forward_flops(visible)
        + 2 * visible * size.encoder.width * size.decoder.width
        + size.decoder.forward_flops(everywhere)
        + 2 * size.num_patches * size.decoder.width * size.patch_numbers
    )
    return Work(batch * (3 * forward - embedding), OPTIMIZER_BYTES * size.num_weights, dtype)


@lru_cache
def mae_size(
    backbone: str, image_size: int | tuple[int, int] = 224, patch_size: int = 16, **decoder: Any
) -> MAESize:
    """The sizes of an MAE over a timm backbone, whose weights are not made.

    Args:
        backbone: Its name.
        image_size: Side in pixels, or (height, width).
        patch_size: Side of a patch in pixels.
        decoder: Arguments of :class:`~dppmask.models.mae.MAE`.

    Raises:
        UserError: If the architecture or a size does not fit.
    """
    with torch.device("meta"):
        return MAESize.of(MAE(Encoder(backbone, image_size=image_size, patch_size=patch_size), **decoder))


def _matrix_entries(blocks: nn.Module) -> int:
    return sum(weight.numel() for weight in blocks.parameters() if weight.ndim == 2)
