"""What the work must cost at least: floating-point operations, bytes to and from memory, and their floor.

A multiplication and an addition are two operations. Bytes count what has to come from memory and go back
once; intermediate results that fit into a cache or into shared memory count as nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

DRAWS_PER_SAMPLE = 11  # of DPP(αL) until one has K = 49 of 196 patches, on kernels of images
OPTIMIZER_BYTES = (
    28  # per weight: AdamW reads weight, gradient and two moments and writes all but the gradient
)


class Shape(NamedTuple):
    """The size of a batch of masks.

    Attributes:
        batch: B, images.
        num_patches: N.
        num_keep: K, visible patches.
        dim: D, features of a patch.
    """

    batch: int
    num_patches: int
    num_keep: int
    dim: int


@dataclass(frozen=True)
class Machine:
    """How fast a machine is.

    Attributes:
        name: What the reader knows it by.
        rates: Operations per second of a matrix product, by precision.
        bandwidth: Bytes per second between the device and its memory.
    """

    name: str
    rates: Mapping[torch.dtype, float]
    bandwidth: float


# The vendor's data sheet, SXM version: dense products on tensor cores, but float32 outside them.
H100 = Machine(
    "H100",
    {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 67e12, torch.float64: 67e12},
    3.35e12,
)


class Work(NamedTuple):
    """What a piece of work asks of a machine.

    Attributes:
        flops: Floating-point operations.
        bytes: Traffic to and from memory.
        dtype: Precision of the operations.
    """

    flops: float
    bytes: float
    dtype: torch.dtype = torch.float32

    def floor(self, machine: Machine) -> float:
        """Seconds in which no implementation can beat the machine: the slower of computing and moving."""
        return max(self.flops / machine.rates[self.dtype], self.bytes / machine.bandwidth)

    def columns(self) -> dict[str, object]:
        """As part of a row."""
        return {"flops": self.flops, "bytes": self.bytes}

    def bound(self, machine: Machine) -> str:
        """Which of the two it is: "compute" or "memory"."""
        moving = self.bytes / machine.bandwidth
        return "memory" if moving > self.flops / machine.rates[self.dtype] else "compute"


def gaussian_kernel(shape: Shape) -> Work:
    """The Gram matrix as a dense product, ``2 N² D``; normalising and the exponential are of lower order."""
    batch, N, _, D = shape
    return Work(batch * 2 * N**2 * D, 4 * batch * (N * D + N**2))


def greedy_from_kernel(shape: Shape) -> Work:
    """Pick t projects one row of L on the t before it, ``2 N t``, scales it and updates the gains, ``3 N``.

    Only the K rows of L that belong to a pick have to be read.
    """
    batch, N, K, _ = shape
    return Work(batch * (N * K * (K - 1) + 3 * N * K), 4 * batch * N * (K + 1))


def greedy_from_features(shape: Shape) -> Work:
    """As :func:`greedy_from_kernel`, but each pick works out its own row of L, ``2 N D``."""
    batch, N, K, D = shape
    return Work(greedy_from_kernel(shape).flops + batch * 2 * N * K * D, 4 * batch * (N * D + K))


def exact_spectral(shape: Shape) -> Work:
    """Eigenvectors, then one item at a time from their span.

    Reduction to a tridiagonal matrix ``4/3 N³`` and back-transformation ``2 N³`` (the eigenvectors between
    the two count as nothing); elementary symmetric polynomials ``2 N K``; each of the K items is projected
    out of ``[K, N]``, ``2 N K``, after it was orthogonalised twice against those before it, ``8 K t``.
    """
    batch, N, K, _ = shape
    eigenvectors = (4 / 3 + 2) * N**3
    sampling = 2 * N * K + 2 * N * K**2 + 4 * K**2 * (K - 1)
    return Work(batch * (eigenvectors + sampling), 4 * batch * (N**2 + K), torch.float64)


def exact_rejection(shape: Shape, draws: float = DRAWS_PER_SAMPLE) -> Work:
    """One matrix ``L + I / α`` inverted in ``N³``, and draws of an LDL factorisation each.

    The factorisation takes ``N³ / 3``, or ``4/3 N K²`` where only what concerns the chosen items is kept; the
    smaller of the two counts.

    Args:
        shape: Of the batch.
        draws: Expected draws until one has K items.
    """
    batch, N, K, _ = shape
    one_draw = min(N**3 / 3, 4 / 3 * N * K**2)
    return Work(batch * (N**3 + draws * one_draw), 4 * batch * (N**2 + K))
