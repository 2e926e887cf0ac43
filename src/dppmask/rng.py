"""Randomness as a pure function of what is counted: seeds, steps, slots, epochs, sample indices.

Nothing else in the package seeds a generator, and nothing draws from a global one outside :func:`seeded`.
"""

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def fold_seed(seed: int, *counters: int) -> int:
    """Mix a seed and any number of counters into one 64-bit seed.

    The mix is a keyed hash of the whole tuple, so ``(0, 1, 2)``, ``(0, 12)`` and ``(1, 0, 2)`` are unrelated.

    Args:
        seed: The run's seed; any Python integer.
        counters: What is counted, for example ``(optimizer_step, slot)`` or ``(epoch, index)``.
    """
    text = ",".join(str(int(value)) for value in (seed, *counters))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def fold_in(seed: int, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator that depends on ``(seed, *counters)`` alone.

    torch's CPU generator reads the low 32 bits of a seed and CUDA's reads all 64, so the two devices give
    different streams; a mask that must not depend on the device takes a CPU generator.
    """
    return torch.Generator(device).manual_seed(fold_seed(seed, *counters))


@contextmanager
def seeded(seed: int, *counters: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run a block with the global torch, NumPy and Python generators set from ``(seed, *counters)``.

    For libraries that know no other generator (torchvision v2, timm's mixup and DropPath). The previous
    states come back on exit, also after an exception. NumPy is touched only if somebody has imported it.

    Args:
        seed: The run's seed.
        counters: What is counted.
        device: A CUDA device whose generator is set as well; the CPU's always is.
    """
    mixed = fold_seed(seed, *counters)
    device = torch.device(device)
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    cpu_state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        random.seed(mixed)
        torch.default_generator.manual_seed(mixed)
        if numpy:
            numpy.random.seed(mixed % 2**32)
        if cuda_state is not None:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(mixed)
        yield
    finally:
        random.setstate(python_state)
        torch.set_rng_state(cpu_state)
        if numpy:
            numpy.random.set_state(numpy_state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, device)
