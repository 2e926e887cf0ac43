"""Triton's interpreter for the tests of this folder."""

from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

import pytest
import triton_interpreter

collect_ignore_glob = [] if find_spec("triton") else ["test_triton_*.py"]  # torch brings it on Linux only


@pytest.fixture(scope="session")
def interpreted():
    """The functions of ``triton_ops``, interpreted on CPU tensors."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=triton_interpreter.start) as pool:
        yield triton_interpreter.Interpreted(pool)
