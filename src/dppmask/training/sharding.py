"""FSDP2: the weights of a method divided over the ranks."""

import torch.export
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from dppmask.masks.base import Tokens

# FSDP2 gathers a module's weights again when the gradient of its output arrives. Up to torch 2.11 it finds
# tensors in registered containers only: without this the encoder's final norm meets freed weights.
torch.export.register_dataclass(Tokens)


def shard(module: nn.Module, encoder: nn.Module, mesh: DeviceMesh) -> None:
    """Divide every transformer block, then the encoder, then the rest; changes ``module`` in place.

    Weights are gathered around a module's forward pass. Two others are passes as well: ``training_step``, the
    first of all, and the encoder's ``embed``, which runs before its ``forward`` when a strategy reads tokens.

    Args:
        module: The Lightning module; its blocks are the children of attributes named "blocks".
        encoder: Part of it.
        mesh: The ranks, one dimension.
    """
    for part in list(module.modules()):
        for block in getattr(part, "blocks", ()):
            if isinstance(block, nn.Module):
                fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh)
    fully_shard(module, mesh=mesh)
    register_fsdp_forward_method(encoder, "embed")
    register_fsdp_forward_method(module, "training_step")
