"""The loops of this package as torch operators: one name each, the fastest implementation for the device.

An operator is opaque to ``torch.compile``: no graph break, and no loop traced step by step. Here, and nowhere
else, backends meet:

- CUDA, float32, at most 1024 items: Triton kernels (``triton_ops``, ``triton_sampling``);
- CPU where numba is installed (extra ``fast``): compiled loops (``numba_ops``, ``numba_sampling``);
- everything else: batched torch operations (``torch_ops``, ``torch_sampling``).
"""

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dppmask.dpp.backends import torch_ops
from dppmask.dpp.threads import chain

TRITON_ITEMS = 1024  # a row of the kernel is kept in the registers of one program
HAS_NUMBA = importlib.util.find_spec("numba") is not None
HAS_TRITON = importlib.util.find_spec("triton") is not None

# torch.library.custom_op would say the same in fewer words, but its first call imports torch's compiler.
_library = torch.library.Library("dppmask", "DEF")


def backend(x: Tensor, num_items: int) -> str:
    """Who works on tensors like ``x``, of so many items: "triton", "numba" or "torch"."""
    if x.device.type == "cpu":
        return "numba" if HAS_NUMBA else "torch"
    small = x.dtype == torch.float32 and num_items <= TRITON_ITEMS
    return "triton" if x.device.type == "cuda" and small and HAS_TRITON else "torch"


def operator(schema: str, *, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the operator ``dppmask::schema`` of every device; returns the operator.

    Args:
        schema: Name, arguments and results, as torch writes them.
        fake: The results' shapes from the arguments, for tracing.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = schema.split("(")[0]
        _library.define(schema)
        _library.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"dppmask::{name}", fake, lib=_library)
        registered: Callable[..., Any] = getattr(torch.ops.dppmask, name)
        return registered

    return register


def _fake_pivots(x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    *_, k, _tolerance, _first = arguments
    return x.new_empty(x.shape[0], k, dtype=torch.int64), x.new_empty(x.shape[0], k)


@operator(
    "pivoted_cholesky(Tensor L, SymInt k, Tensor tolerance, Tensor? first) -> (Tensor, Tensor)",
    fake=_fake_pivots,
)
def pivoted_cholesky(L: Tensor, k: int, tolerance: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`torch_ops.pivoted_cholesky`."""
    name = backend(L, L.shape[1])
    if name == "torch":
        numbers = k * L.shape[0] * L.shape[1]
        return chain(torch_ops.pivoted_cholesky, L, k, tolerance, first, numbers=numbers)
    return _implementation(name).pivoted_cholesky(L, k, tolerance, first)


@operator(
    "pivoted_cholesky_gaussian(Tensor points, Tensor rate, SymInt k, Tensor tolerance, Tensor? first)"
    " -> (Tensor, Tensor)",
    fake=_fake_pivots,
)
def pivoted_cholesky_gaussian(
    points: Tensor, rate: Tensor, k: int, tolerance: Tensor, first: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`torch_ops.pivoted_cholesky_gaussian`."""
    if backend(points, points.shape[1]) == "numba":
        return _implementation("numba").pivoted_cholesky_gaussian(points, rate, k, tolerance, first)
    numbers = k * points.numel()
    return chain(torch_ops.pivoted_cholesky_gaussian, points, rate, k, tolerance, first, numbers=numbers)


def _fake_gaussian(features: Tensor, bandwidth: float, normalize: bool) -> Tensor:
    B, N, _ = features.shape
    return features.new_empty(B, N, N, dtype=torch.float32)


@operator(
    "gaussian(Tensor features, float bandwidth, bool normalize) -> Tensor",
    fake=_fake_gaussian,
)
def gaussian(features: Tensor, bandwidth: float, normalize: bool) -> Tensor:
    """The Gaussian kernel ``[B, N, N]`` of features ``[B, N, D]``; only where :func:`backend` is "triton"."""
    return _implementation("triton").gaussian(features, bandwidth, normalize)


def sequential_draws(kernel: Tensor, uniforms: Tensor, size: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`torch_sampling.sequential_draws`; only numba takes what :mod:`numba_sampling` explains."""
    module = _implementation(backend(kernel, kernel.shape[1]), "sampling")
    return module.sequential_draws(kernel, uniforms, size, active)


def sequential_sample(kernel: Tensor, uniforms: Tensor) -> Tensor:
    """See :func:`torch_sampling.sequential_sample`; one draw alone is no work for a kernel of its own."""
    name = backend(kernel, kernel.shape[1])
    return _implementation("numba" if name == "numba" else "torch", "sampling").sequential_sample(
        kernel, uniforms
    )


def _implementation(name: str, kind: str = "ops") -> ModuleType:
    return importlib.import_module(f"dppmask.dpp.backends.{name}_{kind}")
