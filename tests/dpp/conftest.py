"""In every test of this folder fresh memory is poisoned with NaN: what was not written cannot pass for 0."""

import pytest
import torch

from dppmask.dpp.backends import ops


@pytest.fixture(autouse=True)
def _poisoned_memory():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(
        True
    )  # with torch.utils.deterministic.fill_uninitialized_memory, the default
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def global_rng_untouched():
    """The test fails if anything drew from torch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def use_backend(monkeypatch):
    """``use_backend("torch")``: CPU tensors are worked on by this backend."""

    def use(name):
        monkeypatch.setattr(ops, "HAS_NUMBA", name == "numba")
        assert ops.backend(torch.zeros(1), 1) == name

    return use
