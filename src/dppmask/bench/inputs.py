"""What is timed is fed with this: features, kernels, strategies on a context. Needs torch alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from dppmask.bench.arithmetic import Shape
from dppmask.dpp import gaussian_kernel
from dppmask.dpp.backends import ops
from dppmask.masks import DPPMask, KDPPMask, MaskContext, MaskStrategy, RandomMask
from dppmask.rng import fold_in

OURS = "dppmask"

# As users get them. Nothing is purged: every visible patch is a greedy pick, which is the dearest case.
STRATEGIES: dict[str, Callable[[], MaskStrategy]] = {
    "random": RandomMask,
    "greedy": partial(DPPMask, purge_ratio=0.0),
    "exact": KDPPMask,
}
MASKS = {name: f"{name} mask from tokens" for name in STRATEGIES}  # the tasks


@dataclass(frozen=True)
class Batch:
    """The input of every implementation of a task.

    Attributes:
        shape: Its sizes.
        device: Where ours finds it; rivals on NumPy find it on the CPU, in float64.
    """

    shape: Shape
    device: torch.device

    @cached_property
    def features(self) -> Tensor:
        """Float32 ``[B, N, D]``: normal numbers around a direction that the patches of an image share."""
        return patch_features(self.shape).to(self.device)

    @cached_property
    def kernel(self) -> Tensor:
        """Float32 ``[B, N, N]``."""
        return gaussian_kernel(self.features)

    def images(self) -> Any:
        """The features of each image as NumPy arrays ``[N, D]``."""
        return self.features.double().cpu().numpy()

    def kernels(self) -> Any:
        """The kernel of each image as NumPy arrays ``[N, N]``."""
        return self.kernel.double().cpu().numpy()


def patch_features(shape: Shape) -> Tensor:
    """See :attr:`Batch.features`; written in place, so that memory holds them once."""
    batch, num_patches, _, dim = shape
    generator = fold_in(0, batch, num_patches)
    shared = torch.randn(batch, 1, dim, generator=generator)
    return torch.empty(batch, num_patches, dim).normal_(generator=generator).add_(shared)


def draw_masks(strategy: MaskStrategy, tokens: Tensor, num_masked: int) -> Callable[[], object]:
    """A strategy as the trainer calls it, with a CPU generator."""
    context, generator = MaskContext.from_tokens(tokens), fold_in(1)
    return lambda: strategy(context, num_masked, generator=generator)


def is_ours(implementation: str) -> bool:
    """Whether a name of an implementation is one of this package, whatever algorithm it adds."""
    return implementation.startswith(OURS)


def backend(shape: Shape, device: torch.device) -> str:
    """What runs the loops of ``dppmask.dpp`` on float32 of this shape: "triton", "numba" or "torch"."""
    return ops.backend(torch.empty(0, device=device), shape.num_patches)
