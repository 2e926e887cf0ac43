"""Machine code by numba, kept on disk where there is a place to write."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numba


def compiled(function: Callable[..., Any], *, fastmath: frozenset[str] = frozenset()) -> Any:
    """The function compiled, without Python's global lock while it runs.

    Args:
        function: Of numbers and NumPy arrays.
        fastmath: What LLVM may assume of floating-point numbers.
    """
    njit = partial(numba.njit, nogil=True, fastmath=set(fastmath))
    try:
        return njit(function, cache=True)
    except RuntimeError:  # neither beside the source nor in the user's cache
        return njit(function)


# Sums may be reordered, which vectorises them; NaN and infinity keep their meaning.
reordered = partial(compiled, fastmath=frozenset({"contract", "reassoc", "nsz", "arcp"}))
