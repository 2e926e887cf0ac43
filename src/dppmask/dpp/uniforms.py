"""As many uniform numbers as a sampler may need, each a pure function of one row of noise and a counter.

A row of noise is condensed into 64 bits, and the number with counter c is a hash of those bits and c. All of
it is integer arithmetic modulo 2⁶⁴, hence equal on every device and in every batch.

Source: the finaliser of SplitMix64: Steele, Lea and Flood (2014), *Fast Splittable Pseudorandom Number
    Generators*.
"""

import torch
from torch import Tensor


def _signed(bits: int) -> int:
    """The int64 of the same 64 bits."""
    return bits - 2**64 if bits >= 2**63 else bits


GOLDEN = _signed(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio, odd: multiples of it spread evenly
FACTORS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))


def digest(noise: Tensor) -> Tensor:
    """Condense each row of noise ``[..., N]`` in [0, 1) into int64 ``[...]``; any bit of it changes all."""
    bits = (noise.double() * 2**53).long()  # exact: float32 lies on the grid of 2⁻²⁴, float64 on that of 2⁻⁵³
    place = torch.arange(1, noise.shape[-1] + 1, device=noise.device) * GOLDEN
    return _mix(_mix(bits + place).sum(-1))


def uniforms(digests: Tensor, counters: Tensor) -> Tensor:
    """Uniform float64 in [0, 1), one for each digest and counter.

    Args:
        digests: int64, from :func:`digest`.
        counters: int64 of any shape that broadcasts with the digests.
    """
    return _upper_bits(_mix(digests + counters * GOLDEN), 53).double() * 2.0**-53


def uniforms_from_noise(noise: Tensor, count: int) -> Tensor:
    """Float32 uniform numbers that are a pure function of a row of noise, and look independent of it.

    So a strategy that needs more numbers than patches still draws from its generator once.

    Args:
        noise: ``[..., N]`` in [0, 1).
        count: How many numbers per row.

    Returns:
        ``[..., count]``, multiples of 2⁻²⁴ in [0, 1).
    """
    counters = torch.arange(count, device=noise.device) * GOLDEN
    return _upper_bits(_mix(digest(noise)[..., None] + counters), 24).float() * 2.0**-24


def signs(*shape: int, device: torch.device) -> Tensor:
    """A fixed table of float64 ±1 that looks random: the same on every device."""
    count = torch.Size(shape).numel()
    counters = torch.arange(1, count + 1, device=device)
    return (1 - 2 * _upper_bits(_mix(counters * GOLDEN), 1)).double().reshape(shape)


def _mix(x: Tensor) -> Tensor:
    """A permutation of the 64-bit integers: every bit of the input reaches every bit of the output."""
    x = (x ^ _upper_bits(x, 34)) * FACTORS[0]
    x = (x ^ _upper_bits(x, 37)) * FACTORS[1]
    return x ^ _upper_bits(x, 33)


def _upper_bits(x: Tensor, count: int) -> Tensor:
    """The highest ``count`` bits as a number: a shift to the right that does not copy the sign."""
    return (x >> (64 - count)) & (2**count - 1)
