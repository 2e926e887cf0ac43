import os

import pytest
import torch
from triton_ahead_of_time import compiled, launches

from dppmask.dpp.backends import triton_cholesky, triton_gaussian, triton_sampling

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets in this process"
)

SHARED_MEMORY = {
    80: 99 * 1024,
    90: 227 * 1024,
}  # bytes that a program may have; the first is that of an RTX 3090


def on_meta(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device="meta")


def cholesky(B, N, k, first=False):
    pointers = on_meta(B, dtype=torch.int64) if first else None
    return triton_cholesky, "pivoted_cholesky", (on_meta(B, N, N), k, on_meta(B), pointers)


def gaussian(B, N, D, dtype=torch.float32, normalize=True):
    return triton_gaussian, "gaussian", (on_meta(B, N, D, dtype=dtype), 1.0, normalize)


def draws(B, N, R, size=49):
    noise = on_meta(B, R, N, dtype=torch.float64)
    return triton_sampling, "sequential_draws", (on_meta(B, N, N), noise, size, on_meta(B, dtype=torch.bool))


CASES = {
    "cholesky-196": cholesky(256, 196, 49, first=True),
    "cholesky-1024": cholesky(64, 1024, 256),
    "cholesky-49": cholesky(2048, 49, 12, first=True),
    "cholesky-1": cholesky(1, 1, 1),
    "gaussian-196": gaussian(256, 196, 768),
    "gaussian-196-bf16": gaussian(256, 196, 768, torch.bfloat16),
    "gaussian-1024": gaussian(64, 1024, 768),
    "gaussian-49-fp16": gaussian(2048, 49, 3072, torch.float16, normalize=False),
    "gaussian-1": gaussian(1, 1, 1),
    "draws-196": draws(256, 196, 64),
    "draws-1024": draws(64, 1024, 16),
    "draws-1": draws(1, 1, 1),
}


@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize("case", CASES)
def test_compiles_and_fits(monkeypatch, case, capability):
    module, function, arguments = CASES[case]
    recorded = launches(monkeypatch, module, function, *arguments)
    assert recorded
    for launch in recorded:
        assert "enable_fp_fusion" in launch.options  # its default is not the same in all versions
        kernel = compiled(launch, capability)
        assert kernel.metadata.shared <= SHARED_MEMORY[capability]
        assert kernel.asm["cubin"]
        if function == "gaussian":
            assert "tf32" not in kernel.asm["ptx"]
