"""What the functions of this folder ask of their input, and the precision they work in."""

import torch
from torch import Tensor


def can_look_at(x: Tensor) -> bool:
    """Whether reading values costs neither a wait for a device nor a graph break."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def as_real(x: Tensor, name: str) -> Tensor:
    """``x`` in float32 or float64; half precision is promoted to float32.

    Raises:
        TypeError: If ``x`` is not a floating-point tensor.
    """
    if not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")
    return x if x.dtype == torch.float64 else x.float()


def as_kernel(L: Tensor) -> Tensor:
    """A finite likelihood kernel ``[..., N, N]`` in float32 or float64.

    Raises:
        TypeError: If it is not a floating-point tensor.
        ValueError: If it is not square, or (looked at on the CPU only) not finite.
    """
    L = as_square(L)
    check_finite(L, "L")
    return L


def as_square(L: Tensor) -> Tensor:
    """As :func:`as_kernel`, but without a look at the entries."""
    if L.ndim < 2 or L.shape[-1] != L.shape[-2] or L.shape[-1] == 0:
        raise ValueError(f"L must have shape [..., N, N] with N >= 1, got {list(L.shape)}")
    return as_real(L, "L")


def as_features(features: Tensor) -> Tensor:
    """Finite features ``[..., N, D]`` in float32 or float64.

    Raises:
        TypeError: If they are not a floating-point tensor.
        ValueError: If a dimension is missing or empty, or (looked at on the CPU only) one is not finite.
    """
    if features.ndim < 2 or 0 in features.shape[-2:]:
        raise ValueError(f"features must have shape [..., N, D] with N, D >= 1, got {list(features.shape)}")
    features = as_real(features, "features")
    check_finite(features, "features")
    return features


def check_finite(x: Tensor, name: str) -> None:
    """Raise ``ValueError`` for NaN or infinite entries; looks on the CPU only."""
    # a finite sum proves finite entries and costs a tenth of looking at each of them
    if can_look_at(x) and not x.detach().sum().isfinite() and not x.isfinite().all():
        raise ValueError(f"{name} must be finite, got {int((~x.isfinite()).sum())} NaN or infinite entries")


def check_size(k: int, num_items: int) -> None:
    """Raise ``ValueError`` unless ``k`` is in [0, N]."""
    if not 0 <= k <= num_items:
        raise ValueError(f"k must be in [0, {num_items}] for {num_items} items, got {k}")


def as_sizes(k: int | Tensor, batch: list[int], num_items: int, device: torch.device) -> Tensor:
    """Sizes, one for all rows or one for each, as int64 of shape ``batch`` on ``device``.

    Raises:
        TypeError: If ``k`` is a tensor but not int64.
        ValueError: If its shape is not ``batch``, or a size is outside [0, N] (looked at on the CPU only).
    """
    if not isinstance(k, Tensor):
        check_size(k, num_items)
        return torch.full(batch, k, device=device)
    if k.dtype != torch.int64:
        raise TypeError(f"k must be int64, got a tensor of {k.dtype}")
    if list(k.shape) != batch:
        raise ValueError(f"k must have shape {batch}, one size for each kernel, got {list(k.shape)}")
    if can_look_at(k) and k.numel():
        for size in k.aminmax():
            check_size(int(size), num_items)
    return k.to(device, non_blocking=True)


def rows_left(left: Tensor) -> Tensor | slice:
    """Index of the rows where ``left [B]`` is True; of all of them where a look would wait for a device."""
    if not can_look_at(left) or left.all():
        return slice(None)
    return left.nonzero()[:, 0]


def no_autocast(x: Tensor) -> torch.autocast:
    """A context in which matrix products keep the precision of their operands."""
    return torch.autocast(device_type=x.device.type, enabled=False)
