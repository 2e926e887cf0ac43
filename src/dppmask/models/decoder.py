"""The light decoder of MAE: visible tokens and mask tokens in, a prediction for every patch out."""

import math
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from dppmask.errors import UserError
from dppmask.masks.base import Mask, Tokens, take
from dppmask.models.encoder import xavier_linear
from dppmask.models.positions import sincos_table


class Decoder(nn.Module):
    """A narrow transformer over the whole grid, in which one learned token stands for every hidden patch.

    Args:
        encoder_dim: Width of the encoder's tokens.
        grid: (rows, columns) of patches.
        out_features: Numbers to predict per patch.
        num_prefix: P, the class and register tokens that come with the patches.
        embed_dim: Width.
        depth: Number of blocks.
        num_heads: Attention heads per block.
        mlp_ratio: Hidden width of the perceptrons over ``embed_dim``.

    Raises:
        UserError: If a number is out of range, or ``embed_dim`` is not a multiple of 4 and of ``num_heads``.
    """

    def __init__(
        self,
        encoder_dim: int,
        grid: tuple[int, int],
        out_features: int,
        *,
        num_prefix: int = 1,
        embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        for name, value in {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}.items():
            if value < 1:
                raise UserError(
                    f"decoder_{name} must be at least 1, got {value}; MAE uses 512, 8 and 16 heads"
                )
        if not 1 <= embed_dim * mlp_ratio < math.inf:
            raise UserError(f"decoder_mlp_ratio must be positive and finite, got {mlp_ratio}; MAE uses 4.0")
        if embed_dim % 4 or embed_dim % num_heads:
            raise UserError(
                f"decoder_embed_dim must be a multiple of 4 and of decoder_num_heads {num_heads}, "
                f"got {embed_dim}"
            )
        self.num_prefix = num_prefix
        self.embed = nn.Linear(encoder_dim, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.position: Tensor
        self.register_buffer("position", sincos_table(grid, embed_dim, num_prefix=num_prefix))
        norm_layer: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio=mlp_ratio, qkv_bias=True, norm_layer=norm_layer)
            for _ in range(depth)
        )
        self.norm = norm_layer(embed_dim)
        self.head = nn.Linear(embed_dim, out_features)
        self.apply(xavier_linear)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, encoded: Tokens, mask: Mask) -> Tensor:
        """Predict all N patches, ``[B, N, out_features]``, from the K visible ones.

        A patch that is masked but not a target takes no part: no token attends to it, its prediction is zero.

        Args:
            encoded: Tokens of the visible patches, ascending: prefix ``[B, P, D]``, patches ``[B, K, D]``.
            mask: The mask they were encoded with; equally many hidden in each row.
        """
        visible = self.embed(torch.cat([encoded.prefix, encoded.patches], dim=1))  # [B, P + K, D']
        batch, num_hidden = len(visible), mask.num_patches - encoded.patches.shape[1]
        hidden = self.mask_token.expand(batch, num_hidden, -1)
        patches = torch.cat([visible[:, self.num_prefix :], hidden], dim=1)  # [B, N, D'], visible first
        patches = take(patches, mask.ids_restore)  # [B, N, D'], row-major
        x = torch.cat([visible[:, : self.num_prefix], patches], dim=1) + self.position  # [B, P + N, D']
        if mask.target is None:
            return self._predict(x, None)
        decoded = ~mask.masked | mask.target  # [B, N]
        return self._predict(x, decoded).masked_fill(~decoded[:, :, None], 0.0)

    def _predict(self, x: Tensor, decoded: Tensor | None) -> Tensor:
        """Blocks, norm and head; ``decoded`` bool ``[B, N]`` marks the patches that may be attended to."""
        attn_mask = None
        if decoded is not None:
            prefix = decoded.new_ones(len(decoded), self.num_prefix)
            attn_mask = torch.cat([prefix, decoded], dim=1)[:, None, None, :]  # [B, 1, 1, P + N]
        for block in self.blocks:
            x = block(x, attn_mask=attn_mask)
        return self.head(self.norm(x)[:, self.num_prefix :])
