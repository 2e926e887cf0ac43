"""The Triton kernels on CPU tensors: a process of its own in which Triton interprets instead of compiling.

Triton reads its flag when it is imported and when a kernel is decorated, so a process has one or the other.
"""

import os
import pickle
from typing import Any

import torch


def start() -> None:
    """To be run once in the process, before anything imports Triton."""
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # fresh memory is NaN here too


def call(function: str, arguments: bytes) -> bytes:
    """A function of ``triton_ops`` on pickled arguments; tensors pickled by hand are copied, not shared."""
    from dppmask.dpp.backends import triton_ops

    return pickle.dumps(getattr(triton_ops, function)(*pickle.loads(arguments)))


class Interpreted:
    """``triton_ops`` in the process behind a pool: its functions by the same names."""

    def __init__(self, pool) -> None:
        self.pool = pool

    def __getattr__(self, function: str):
        def run(*arguments: Any) -> Any:
            return pickle.loads(self.pool.submit(call, function, pickle.dumps(arguments)).result())

        return run
