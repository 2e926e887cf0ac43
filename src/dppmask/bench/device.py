"""What a device can do: its rate of matrix products, its bandwidth, and what a mask asks of its host."""

import warnings
from collections.abc import Callable
from functools import partial

import torch

from dppmask.bench.arithmetic import Machine
from dppmask.bench.harness import Row, measure_in_turns
from dppmask.training.environment import describe_environment

SYNC_WARNING = "called a synchronizing CUDA operation"

# Rows of the square matrices; large enough for the full rate and small enough for a second.
MATRIX_ROWS = {
    "cpu": {torch.float32: 1536, torch.float64: 1536},
    "cuda": {torch.bfloat16: 8192, torch.float16: 8192, torch.float32: 4096, torch.float64: 4096},
}
COPIED = 2**26  # float32 numbers: 256 MiB, beyond any cache


def measure_machine(device: torch.device, *, quick: bool = False) -> Machine:
    """Rates of square matrix products and of a large copy, by the median of ten.

    Args:
        device: Whose; on a CPU all threads that torch uses take part.
        quick: Small matrices and a small copy: to see that it runs.
    """
    shrink = 4 if quick else 1
    rates = {
        dtype: _matmul_rate(rows // shrink, dtype, device) for dtype, rows in MATRIX_ROWS[device.type].items()
    }
    return Machine(device_name(device), rates, _copy_rate(COPIED // shrink**2, device))


def device_name(device: torch.device) -> str:
    """The model of the processor or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(describe_environment()["hardware"]["cpu"])


def rate_columns(machine: Machine) -> Row:
    """The measured rates as columns for every row."""
    rates: Row = {
        f"matmul_{str(dtype).removeprefix('torch.')}_gflops": round(rate / 1e9, 1)
        for dtype, rate in machine.rates.items()
    }
    return rates | {"bandwidth_gbs": round(machine.bandwidth / 1e9, 2)}


def count_syncs(call: Callable[[], object]) -> int:
    """How often the host waits for the CUDA device in one call, not counting what only a first call does."""
    call()
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return sum(SYNC_WARNING in str(warning.message) for warning in caught)


def capture(call: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
    """A call as a CUDA graph; None where it cannot be captured.

    Try it only on what does not wait for the device: a wait breaks the capture off and may leave libraries
    in a state of which nothing is promised.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()  # what is set up at first call must not be captured
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        return None
    return graph


def _matmul_rate(rows: int, dtype: torch.dtype, device: torch.device) -> float:
    left, right = (torch.ones(rows, rows, dtype=dtype, device=device) for _ in range(2))
    product = torch.empty_like(left)
    seconds = measure_in_turns({"": partial(torch.mm, left, right, out=product)})[""].median
    return 2 * rows**3 / seconds


def _copy_rate(numbers: int, device: torch.device) -> float:
    """Bytes per second, read and written ones alike."""
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * numbers / measure_in_turns({"": partial(target.copy_, source)})[""].median
