"""The encoder: any timm ``VisionTransformer`` by name, with dropped patches.

The only file that knows timm's internals.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import timm
import torch
from timm.layers import PatchEmbed
from timm.layers.attention import Attention
from timm.models import is_model_in_modules
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from dppmask.errors import UserError, nearest
from dppmask.masks.base import Mask, Tokens, take
from dppmask.models.positions import resize_table, sincos_table

Position = Literal["sincos", "learned"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Every VisionTransformer-class entry whose patch embedding sees its own patch only lives in one of these.
_MODULES = ("vision_transformer", "deit")

# Arguments of timm.create_model that the encoder decides itself.
_RESERVED = {
    "pretrained": "weights are loaded with init_from",
    "checkpoint_path": "weights are loaded with init_from",
    "num_classes": "an encoder has no classifier",
    "global_pool": "an encoder returns every token",
    "fc_norm": "an encoder always normalises its tokens",
    "img_size": "use image_size",
    "patch_size": "use patch_size",
    "in_chans": "use in_chans",
    "dynamic_img_size": "use image_size",
    "patch_drop_rate": "masks decide which patches are dropped",
    "pos_embed": "use position",
}


class Encoder(nn.Module):
    """A Vision Transformer that encodes the visible patches of an image.

    Weights are initialised as in MAE: linear layers Xavier-uniform with zero biases, the patch embedding
    likewise as the linear layer it is, class and register tokens normal with standard deviation 0.02. Nothing
    is downloaded.

    Args:
        backbone: Name of a timm architecture of class ``VisionTransformer``.
        image_size: Side, or (height, width); a multiple of the patch size.
        patch_size: Side of a patch in pixels.
        in_chans: Number of image channels.
        position: "sincos" = the fixed table of MAE, never trained; "learned" = timm's.
        backbone_args: Further arguments of ``timm.create_model``: ``depth``, ``drop_path_rate``, ….

    Attributes:
        backbone: The timm module.
        image_size: (height, width).
        grid: (rows, columns) of patches.
        num_patches: N.
        num_prefix: P, class and register tokens.
        embed_dim: D.
        mean: Per-channel mean the images are normalised with.
        std: Per-channel standard deviation.

    Raises:
        UserError: For an unknown or unsuitable architecture, an image size that is not a multiple of the
            patch size, or an argument the architecture does not take.
    """

    def __init__(
        self,
        backbone: str = "vit_small_patch16_224",
        *,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        position: Position = "sincos",
        backbone_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone_name = backbone
        self.backbone_args = dict(backbone_args or {})
        self.patch_size = patch_size
        self.in_chans = in_chans
        self.position = position
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.grid = _grid(self.image_size, patch_size)
        self.mean, self.std = _normalisation(in_chans)
        if position not in ("sincos", "learned"):
            raise UserError(f"position must be 'sincos' or 'learned', got {position!r}")

        self.backbone = self._create_backbone()
        self.num_patches = self.grid[0] * self.grid[1]
        self.num_prefix: int = self.backbone.num_prefix_tokens
        self.embed_dim: int = self.backbone.embed_dim
        self.depth = len(self.backbone.blocks)
        heads = (getattr(module, "num_heads", None) for module in self.backbone.blocks.modules())
        self.num_heads: int = next(number for number in heads if number is not None)
        self._initialise()

    def extra_repr(self) -> str:
        """What the printed module shows: the constructor's arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments as plain data: ``Encoder(**arguments)`` has the same architecture."""
        return {
            "backbone": self.backbone_name,
            "image_size": list(self.image_size),
            "patch_size": self.patch_size,
            "in_chans": self.in_chans,
            "position": self.position,
            "backbone_args": self.backbone_args,
        }

    def timm_arguments(self) -> dict[str, Any]:
        """``timm.create_model(backbone_name, **timm_arguments)`` builds the same module."""
        return {
            "img_size": self.image_size,
            "patch_size": self.patch_size,
            "in_chans": self.in_chans,
            "num_classes": 0,
            "global_pool": "avg",
            "fc_norm": False,
            "dynamic_img_size": False,
            **self.backbone_args,
        }

    @property
    def position_table(self) -> nn.Parameter:
        """``[1, P' + N, D]``, where P' prefix tokens (all or none of them, as timm has it) have a row."""
        return cast(nn.Parameter, self.backbone.pos_embed)

    @property
    def has_class_attention(self) -> bool:
        """Whether :meth:`forward` can return the attention of the class token."""
        block = self.backbone.blocks[-1]
        return self.backbone.has_class_token and type(block) is Block and type(block.attn) is Attention

    def layer_of(self, name: str) -> int:
        """How deep a parameter of the encoder acts.

        0 = before the blocks, i + 1 = in block i, depth + 1 = behind them all.

        Args:
            name: As ``named_parameters`` has it.
        """
        part, _, rest = name.removeprefix("backbone.").partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 1
        before = part in ("cls_token", "reg_token", "pos_embed", "patch_embed", "norm_pre")
        return 0 if before else self.depth + 1

    def embed(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """Patch embedding plus position, with gradient: images ``[B, C, H, W]`` → ``[B, N, D]``.

        Args:
            images: Of the size that the encoder was built for.
            any_size: Take images of any multiple of the patch size; the position table is resized
                bicubically.

        Raises:
            ValueError: If the images have a wrong size or number of channels.
        """
        expected = (self.in_chans, *(images.shape[2:] if any_size else self.image_size))
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images must have shape [batch, {', '.join(map(str, expected))}] as the encoder was built, "
                f"got {list(images.shape)}"
            )
        positions = self.position_table[:, -self.num_patches :]
        if any_size:
            positions = resize_table(positions, self.grid, _grid(tuple(images.shape[2:]), self.patch_size))
        return self.backbone.patch_embed(images) + positions

    def forward(
        self,
        tokens: Tensor,
        mask: Mask | None = None,
        *,
        mask_token: Tensor | None = None,
        blocks: int = 1,
        attention: bool = False,
    ) -> Tokens:
        """Encode the patches that the mask leaves visible, or all of them with a filler for the hidden ones.

        Args:
            tokens: ``[B, N, D]`` from :meth:`embed`.
            mask: Which patches to hide; None = none. Without ``mask_token`` they are dropped, equally many in
                each row, and the visible patches come back in ascending order.
            mask_token: ``[1, 1, D]``, what stands in the place of a hidden patch's embedding, before its
                position is added. All N patches come back, and rows may hide different numbers.
            blocks: Return the last ``blocks`` block outputs, each through the final norm, side by side on the
                feature axis, last block at the end: prefix ``[B, P, blocks · D]``, patches
                ``[B, K, blocks · D]``.
            attention: Also return the last block's softmax attention from the class token to the K patches.

        Raises:
            ValueError: If rows of the mask hide different numbers of patches, the mask has another shape than
                the tokens, ``blocks`` is outside [1, depth], or the backbone has no readable class attention.
        """
        if not 1 <= blocks <= self.depth:
            raise ValueError(f"blocks must be in [1, {self.depth}], the depth of the encoder, got {blocks}")
        if mask is not None:
            _check_fits(mask, tokens)
            tokens = (
                take(tokens, mask.ids_keep) if mask_token is None else self._fill(tokens, mask, mask_token)
            )
        x = self.backbone.norm_pre(self._with_prefix(tokens))  # [B, P + K, D]
        weights = None
        outputs = []
        for index, block in enumerate(self.backbone.blocks):
            if attention and index == self.depth - 1:
                weights = self._class_attention(block, x)
            x = block(x)
            if index >= self.depth - blocks:
                outputs.append(self.backbone.norm(x))
        features = outputs[0] if blocks == 1 else torch.cat(outputs, dim=-1)
        return Tokens(features[:, : self.num_prefix], features[:, self.num_prefix :], weights)

    def encode(
        self, images: Tensor, *, mask: Mask | None = None, blocks: int = 1, attention: bool = False
    ) -> Tokens:
        """:meth:`embed` and :meth:`forward` in one, from images ``[B, C, H, W]``."""
        return self(self.embed(images), mask, blocks=blocks, attention=attention)

    def _fill(self, tokens: Tensor, mask: Mask, mask_token: Tensor) -> Tensor:
        """Put ``mask_token`` plus position in the place of hidden patches."""
        return torch.where(
            mask.masked[:, :, None], mask_token + self.position_table[:, -self.num_patches :], tokens
        )

    def _with_prefix(self, patches: Tensor) -> Tensor:
        """Put class and register tokens, with their positions where they have any, before the patches."""
        prefix: list[Tensor] = [
            token for token in (self.backbone.cls_token, self.backbone.reg_token) if token is not None
        ]
        if not prefix:
            return self.backbone.pos_drop(patches)
        tokens = torch.cat(prefix, dim=1)  # [1, P, D]
        if not self.backbone.no_embed_class:
            tokens = tokens + self.position_table[:, : self.num_prefix]
        return self.backbone.pos_drop(torch.cat([tokens.expand(patches.shape[0], -1, -1), patches], dim=1))

    def _class_attention(self, block: nn.Module, x: Tensor) -> Tensor:
        """Softmax attention from the class token to the patches, float32 ``[B, heads, K]``.

        It is computed beside the block's own, which may be fused and keeps no weights.
        """
        if type(block) is not Block or type(block.attn) is not Attention or not self.has_class_attention:
            raise ValueError(
                f"attention=True needs a class token and standard attention blocks, which "
                f"{self.backbone_name} lacks; use a backbone such as vit_small_patch16_224"
            )
        layer = block.attn
        qkv = layer.qkv(block.norm1(x)).unflatten(-1, (3, layer.num_heads, layer.head_dim))
        query, key, _ = qkv.transpose(1, 3).unbind(2)  # [B, heads, P + K, D / heads] each
        query, key = layer.q_norm(query[:, :, :1]), layer.k_norm(key)
        logits = (query.float() * key.float()).sum(
            -1
        ) * layer.scale  # products, so autocast leaves float32 alone
        return logits.softmax(-1)[:, :, self.num_prefix :]

    def _create_backbone(self) -> VisionTransformer:
        """The timm module, checked to be one this class can drive."""
        _check_name(self.backbone_name)
        for name in self.backbone_args.keys() & _RESERVED.keys():
            raise UserError(f"backbone_args must not contain {name}: {_RESERVED[name]}")
        _check_numbers(self.backbone_args)
        try:
            backbone = timm.create_model(
                self.backbone_name,
                pretrained=False,
                **self.timm_arguments(),
            )
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise UserError(f"backbone_args do not fit {self.backbone_name}: {error}") from None
        if type(backbone) is not VisionTransformer or type(backbone.patch_embed) is not PatchEmbed:
            raise UserError(_unsuitable(self.backbone_name))
        backbone.patch_embed.strict_img_size = False  # embed looks at sizes itself
        return backbone

    @torch.no_grad()
    def _initialise(self) -> None:
        """Fresh weights as in MAE pre-training (He et al. 2022, appendix A.1)."""
        self.apply(xavier_linear)
        kernel = self.backbone.patch_embed.proj.weight
        nn.init.xavier_uniform_(kernel.view(kernel.shape[0], -1))
        for token in (self.backbone.cls_token, self.backbone.reg_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)
        if self.position == "sincos":
            if self.embed_dim % 4:
                raise UserError(
                    f"position 'sincos' needs an embed_dim that is a multiple of 4, got {self.embed_dim}"
                )
            num_prefix = self.position_table.shape[1] - self.num_patches
            self.position_table.copy_(sincos_table(self.grid, self.embed_dim, num_prefix=num_prefix))
            self.position_table.requires_grad_(False)


def xavier_linear(module: nn.Module) -> None:
    """Initialise a linear layer as MAE does; for ``nn.Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_fits(mask: Mask, tokens: Tensor) -> None:
    if mask.masked.shape != tokens.shape[:2]:
        raise ValueError(f"the mask has shape {list(mask.masked.shape)}, the tokens {list(tokens.shape[:2])}")


def _grid(image_size: tuple[int, ...], patch_size: int) -> tuple[int, int]:
    if len(image_size) != 2 or min(image_size) < 1:
        raise UserError(f"image_size must be a positive number or (height, width), got {image_size}")
    if patch_size < 1:
        raise UserError(f"patch_size must be a positive number, got {patch_size}")
    height, width = image_size
    if height % patch_size or width % patch_size:
        good = [max(side // patch_size, 1) * patch_size for side in image_size]
        raise UserError(
            f"image_size must be a multiple of patch_size {patch_size}, got {height} x {width}; "
            f"{good[0]} x {good[1]} would do"
        )
    return height // patch_size, width // patch_size


def _normalisation(in_chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet statistics; other than three channels take their average in each channel."""
    if in_chans == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (sum(IMAGENET_MEAN) / 3,) * in_chans, (sum(IMAGENET_STD) / 3,) * in_chans


def _check_name(name: str) -> None:
    """Raise UserError unless timm knows the architecture and it is a plain Vision Transformer."""
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        suitable = [choice for choice in known if _is_suitable(choice)]
        raise UserError(f"backbone {name!r} is no timm architecture; {nearest(architecture, suitable)}")
    if tag:
        raise UserError(
            f"backbone names an architecture, but {name!r} names trained weights; "
            f"use {architecture}, and init_from for the weights"
        )
    if not _is_suitable(name):
        raise UserError(_unsuitable(name))


def _check_numbers(backbone_args: Mapping[str, Any]) -> None:
    """Raise UserError for numbers with which timm fails late, obscurely, or not at all."""
    for name, value in backbone_args.items():
        if name in ("depth", "embed_dim", "num_heads") and not (isinstance(value, int) and value >= 1):
            raise UserError(f"backbone_args: {name} must be a whole number, at least 1, got {value!r}")
        is_number = isinstance(value, int | float)
        if name == "mlp_ratio" and not (is_number and 0 < value < math.inf):
            raise UserError(f"backbone_args: mlp_ratio must be positive and finite, got {value!r}")
        if name.endswith("_rate") and not (is_number and 0 <= value < 1):
            raise UserError(f"backbone_args: {name} must be in [0, 1), got {value!r}")


def _is_suitable(architecture: str) -> bool:
    return is_model_in_modules(architecture, _MODULES) and "distilled" not in architecture


def _unsuitable(name: str) -> str:
    return (
        f"backbone {name!r} is not a plain timm VisionTransformer, whose patches can be dropped; "
        "use for example vit_small_patch16_224 or deit3_small_patch16_224"
    )
