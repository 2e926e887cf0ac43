"""Use of the CPU's threads where torch's own rule is a bad one: many small pieces of work.

A parallel region costs little while every core is free, but on a busy machine each one waits until its last
thread gets a time slice: hundreds of small regions then take a hundred times longer.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")
LARGE = 2**22  # numbers touched by one step from which on a second thread pays


def chain(function: Callable[..., Result], *inputs: object, numbers: int) -> Result:
    """``function(*inputs)``, a long chain of steps that touch ``numbers`` each: on one thread if few."""
    if numbers >= LARGE or torch.compiler.is_compiling():
        return function(*inputs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*inputs)
    finally:
        torch.set_num_threads(threads)


def spread(function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """``function`` of every part, each on one thread; in turn if a gradient is wanted or torch compiles."""
    has_gradient = any(isinstance(part, Tensor) and part.requires_grad for part in parts)
    if torch.compiler.is_compiling() or len(parts) == 1 or has_gradient:
        return [function(part) for part in parts]
    threads = torch.get_num_threads()

    def work(part: Part) -> Result:
        torch.set_num_threads(1)  # of this worker
        return function(part)

    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, parts))
    finally:
        torch.set_num_threads(threads)


def shares(count: int, *, at_most: int | None = None) -> list[slice]:
    """``range(count)`` cut into equal slices: one for each thread, or more if ``at_most`` says so."""
    size = max(1, math.ceil(count / torch.get_num_threads()))
    size = size if at_most is None else max(1, min(size, at_most))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
