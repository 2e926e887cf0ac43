"""What ours is compared with: the published algorithm, a plain torch loop, DPPy, transformers' ViTMAE."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dppmask.errors import UserError
from dppmask.models.mae import MAE

if TYPE_CHECKING:
    from transformers import ViTMAEForPreTraining

Array = np.ndarray[Any, np.dtype[np.float64]]


def numpy_kernel(features: Array) -> Array:
    """Gaussian kernel ``[N, N]`` of unit bandwidth, of one image's features ``[N, D]`` scaled to length 1."""
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    return np.exp(rows @ rows.T - 1)


def numpy_greedy(kernel: Array, k: int, epsilon: float = 1e-10) -> list[int]:
    """The published fast algorithm for one kernel ``[N, N]``, in float64 with preallocated memory.

    Source: Chen, Zhang and Zhou (2018), Algorithm 1.
    """
    factor = np.zeros((k, len(kernel)))
    gain = np.diag(kernel).copy()
    best = int(np.argmax(gain))
    items = [best]
    for step in range(k - 1):
        row = (kernel[best] - factor[:step, best] @ factor[:step]) / math.sqrt(gain[best])
        factor[step] = row
        gain -= np.square(row)
        gain[best] = -np.inf
        best = int(np.argmax(gain))
        if gain[best] < epsilon:
            break
        items.append(best)
    return items


def torch_greedy(L: Tensor, k: int) -> Tensor:
    """The same recursion on a batch ``[B, N, N]``, as one writes it first; picks int64 ``[B, k]``."""
    batch, N, _ = L.shape
    images = torch.arange(batch, device=L.device)
    factor = torch.zeros(batch, k, N, dtype=L.dtype, device=L.device)
    gain = torch.diagonal(L, dim1=1, dim2=2).clone()  # [B, N]
    best = gain.argmax(dim=1)  # [B]
    items = [best]
    for step in range(k - 1):
        seen = torch.einsum("bs,bsn->bn", factor[images, :step, best], factor[:, :step])
        row = (L[images, best] - seen) / gain[images, best].sqrt()[:, None]
        factor[:, step] = row
        gain = gain - row**2
        gain[images, best] = -torch.inf
        best = gain.argmax(dim=1)
        items.append(best)
    return torch.stack(items, dim=1)


def dppy_sample(kernel: Array, k: int, random_state: np.random.RandomState) -> list[int]:
    """One exact k-DPP sample of DPPy; each image has its own kernel, so each gets a new sampler."""
    from dppy.finite_dpps import FiniteDPP

    return FiniteDPP("likelihood", L=kernel).sample_exact_k_dpp(k, random_state=random_state)


def transformers_mae(ours: MAE, mask_ratio: float) -> "ViTMAEForPreTraining":
    """Transformers' ViTMAE of the sizes of our model; its masks are its own, uniformly random.

    Raises:
        UserError: If it has no model that trains equally many weights.
    """
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    encoder, decoder = ours.encoder, ours.decoder
    blocks: Any = encoder.backbone.blocks
    decoder_block: Any = decoder.blocks[0]
    config = ViTMAEConfig(
        hidden_size=encoder.embed_dim,
        num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.num_heads,
        intermediate_size=blocks[0].mlp.fc1.out_features,
        decoder_hidden_size=decoder.embed.out_features,
        decoder_num_hidden_layers=len(decoder.blocks),
        decoder_num_attention_heads=decoder_block.attn.num_heads,
        decoder_intermediate_size=decoder_block.mlp.fc1.out_features,
        image_size=list(encoder.image_size),
        patch_size=encoder.patch_size,
        num_channels=encoder.in_chans,
        layer_norm_eps=1e-6,
        mask_ratio=mask_ratio,
        norm_pix_loss=ours.norm_pix_loss,
    )
    theirs = ViTMAEForPreTraining(config)
    sizes = [_trained_weights(model) for model in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"transformers has no ViTMAE of the size of {encoder.backbone_name}: ours trains {sizes[0]} "
            f"weights, theirs {sizes[1]}"
        )
    return theirs


def _trained_weights(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
