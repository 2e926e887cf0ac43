"""Further uniform numbers out of the one noise of a strategy, by a counter-based hash."""

import torch
from torch import Tensor

_WORD = 2**32 - 1  # words of 32 bits live in int64, so that no product and no sum overflows
_STEP = 0x9E3779B9  # odd, 2^32 over the golden ratio: multiples of it are spread over all words
_LANES = (0x243F6A88, 0x13198A2E)  # two hashes of a row that differ from their first step on; digits of π


def uniforms(noise: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1) that are a pure function of a row of noise, and look independent of it.

    Number c is a hash of (row, c), computed in integers: equal on every device, and it compiles. So a
    strategy that needs more numbers than patches still draws from its generator once.

    Args:
        noise: float32 ``[B, N]``.
        count: How many numbers per row.

    Returns:
        float32 ``[B, count]``, multiples of 2⁻²⁴.
    """
    words = noise.float().contiguous().view(torch.int32).long() & _WORD  # [B, N]
    first, second = (_hash_row(words, lane) for lane in _LANES)  # [B, 1]
    counter = torch.arange(count, device=noise.device) * _STEP
    hashed = _mix(first ^ _mix((second + counter) & _WORD))  # [B, count]
    return (hashed >> 8).float() * 2.0**-24


def _hash_row(words: Tensor, lane: int) -> Tensor:
    """One word for each row of words ``[B, N]``, in their order: ``[B, 1]``."""
    position = torch.arange(1, words.shape[1] + 1, device=words.device) * _STEP + lane
    return _mix(_mix(words ^ (position & _WORD)).sum(1, keepdim=True) & _WORD)


def _mix(word: Tensor) -> Tensor:
    """A permutation of the 32-bit words in which every bit of the input moves about half of the output.

    Source: the finaliser of MurmurHash3 (Appleby), 32-bit variant.
    """
    word = (word ^ (word >> 16)) * _signed(0x85EBCA6B) & _WORD
    word = (word ^ (word >> 13)) * _signed(0xC2B2AE35) & _WORD
    return word ^ (word >> 16)


def _signed(factor: int) -> int:
    """The factor of smallest size that is equal modulo 2³²: a product with a word then fits into int64."""
    return factor - 2**32 if factor >= 2**31 else factor
