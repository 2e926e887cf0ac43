import subprocess
import sys

import pytest
import torch

from dppmask.bench.arithmetic import Shape
from dppmask.bench.memory import budget_bytes, can_measure
from dppmask.bench.peak import cpu_peak_of_fresh_process

ALLOCATED = 64 * 2**20
HUNGRY = f"""
import torch
from dppmask.bench import inputs, peak

class Hungry(torch.nn.Module):
    def forward(self, context, num_masked, *, generator):
        if context.num_patches == 100:
            torch.ones({ALLOCATED // 4})

inputs.STRATEGIES["hungry"] = Hungry
print(peak.cpu_peak("hungry", peak.Shape(1, 100, 25, 8)))
"""
needs_proc = pytest.mark.skipif(not can_measure(torch.device("cpu")), reason="needs Linux's /proc")


def fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@needs_proc
def test_peak_sees_what_a_mask_takes_and_gives_back():
    assert int(fresh_python(HUNGRY)) == pytest.approx(ALLOCATED, rel=0.05)


@needs_proc
def test_peak_of_exact_masks_holds_their_eigenvectors():
    shape = Shape(8, 400, 100, 16)
    assert cpu_peak_of_fresh_process("exact", shape) > 8 * shape.batch * shape.num_patches**2


def test_a_mask_that_cannot_be_measured_is_named():
    with pytest.raises(RuntimeError, match=r"lazy masks of .* could not be measured"):
        cpu_peak_of_fresh_process("lazy", Shape(1, 100, 25, 8))


def test_the_process_that_measures_itself_imports_torch_alone():
    loaded = fresh_python("import sys, dppmask.bench.peak; print(*sys.modules)").split()
    assert not {"timm", "lightning", "matplotlib", "transformers", "sklearn"} & set(loaded)


def test_budget_beyond_a_thousand_patches_has_no_room_for_a_kernel():
    assert budget_bytes(Shape(2, 1024, 256, 64)) == 4 * 3 * 2 * 1024**2
    large = Shape(2, 4096, 1024, 64)
    assert budget_bytes(large) == 4 * 2 * 4096 * (1024 + 64)
    assert budget_bytes(large) < 4 * 2 * 4096**2
