"""The projection head of self-distillation: token → point on a sphere → logits over prototypes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dppmask.dpp.checks import as_real, no_autocast
from dppmask.errors import UserError


class ProjectionHead(nn.Module):
    """One perceptron for class and patch tokens, L2-normalised, and weight-normalised logits.

    Three linear layers D → hidden → hidden → bottleneck with GELU between them and no normalisation layers.
    Computed in float32 (float64 if the tokens are), also under autocast.

    Args:
        embed_dim: D, width of the tokens.
        out_dim: K, number of the class token's logits.
        patch_out_dim: Number of a patch's logits, from a last layer of their own; None = both kinds of tokens
            share one last layer.
        hidden_dim: Width of the hidden layers.
        bottleneck_dim: Dimension of the sphere's space.
        norm_last_layer: Fix the length of every prototype to 1, instead of training it.

    Raises:
        UserError: If a width is below 1; named as the options of a method.

    Source: DINOHead of Caron et al. (2021) and its iBOT variant, Zhou et al. (2022).
    """

    def __init__(
        self,
        embed_dim: int,
        out_dim: int,
        patch_out_dim: int | None = None,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = False,
    ) -> None:
        super().__init__()
        widths = {"out_dim": out_dim, "head_hidden_dim": hidden_dim, "head_bottleneck_dim": bottleneck_dim}
        for name, width in widths.items():
            if width < 1:
                raise UserError(f"{name} must be at least 1, got {width}; iBOT uses 8192, 2048 and 256")
        if patch_out_dim is not None and patch_out_dim < 1:
            raise UserError(
                f"patch_out_dim must be at least 1, got {patch_out_dim}; leave it out to share out_dim"
            )
        self.perceptron = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        self.apply(_initialise)
        self.last = nn.ModuleDict({"cls": Prototypes(bottleneck_dim, out_dim, norm_last_layer)})
        if patch_out_dim is not None:
            self.last["patch"] = Prototypes(bottleneck_dim, patch_out_dim, norm_last_layer)

    def forward(self, cls: Tensor, patches: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits of class tokens ``[B, D]`` and, if given, patches ``[B, N, D]``: one per prototype."""
        last_of_patches = self.last["patch"] if "patch" in self.last else self.last["cls"]
        with no_autocast(cls):
            cls_logits = self.last["cls"](self._project(cls))
            return cls_logits, None if patches is None else last_of_patches(self._project(patches))

    def _project(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.perceptron(as_real(tokens, "tokens")), dim=-1)


class Prototypes(nn.Module):
    """Weight-normalised linear layer: logit k is ``length_k · <x, direction_k / norm(direction_k)>``.

    Args:
        in_features: Width of x.
        out_features: Number of prototypes.
        fixed_length: Leave every length at 1.

    Source: Salimans and Kingma (2016), "Weight Normalization".
    """

    def __init__(self, in_features: int, out_features: int, fixed_length: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.direction = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.length = nn.Parameter(torch.ones(out_features, 1), requires_grad=not fixed_length)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` → ``[..., out_features]``."""
        return F.linear(x, self.length * F.normalize(self.direction, dim=1))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
