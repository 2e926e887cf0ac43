"""The functions of this folder as Triton kernels for NVIDIA GPUs: no checks, no waiting for the device.

They launch on the current stream, so a CUDA graph may capture them, and equal input gives equal output.
"""

from dppmask.dpp.backends.triton_cholesky import pivoted_cholesky
from dppmask.dpp.backends.triton_gaussian import gaussian
from dppmask.dpp.backends.triton_sampling import sequential_draws

__all__ = ["MAX_ITEMS", "gaussian", "pivoted_cholesky", "sequential_draws"]

MAX_ITEMS = 1024  # from here on a row of the kernel no longer fits the registers of one program
