"""Many items are picked in memory O(N (k + D)): their kernel is never formed."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from dppmask.dpp import greedy_map_gaussian
from dppmask.dpp.backends import ops
ops.HAS_NUMBA = {has_numba}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

x = torch.randn(1, 16_384, 16, generator=torch.Generator().manual_seed(0))
greedy_map_gaussian(x[:, :1100], 4)
before = peak()
assert greedy_map_gaussian(x, 100).num_picked == 100
print(peak() - before)
"""


@pytest.mark.parametrize("has_numba", [False, True], ids=["torch", "numba"])
def test_memory_is_linear_in_the_items(has_numba):
    command = [sys.executable, "-c", SCRIPT.format(has_numba=has_numba)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 100  # MiB: the factor takes 6, the kernel would take 1024
