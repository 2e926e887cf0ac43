"""The most memory a mask takes on a CPU, which a fresh process reads about itself.

``python -m dppmask.bench.peak MASK THREADS B N K D`` prints it in bytes. Needs torch alone.
"""

import subprocess
import sys
from pathlib import Path

import torch

from dppmask.bench.arithmetic import Shape
from dppmask.bench.inputs import STRATEGIES, draw_masks, patch_features

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what to write into clear_refs
WARM_UP = Shape(batch=2, num_patches=16, num_keep=4, dim=8)


def is_told() -> bool:
    """Whether the system keeps the high-water mark of a process and resets it: Linux does."""
    return STATUS.exists() and CLEAR.exists()


def cpu_peak_of_fresh_process(name: str, shape: Shape) -> int:
    """:func:`cpu_peak` in a Python process of its own, on as many threads as here.

    Raises:
        RuntimeError: If it fails.
    """
    numbers = (torch.get_num_threads(), *shape)
    command = [sys.executable, "-m", "dppmask.bench.peak", name, *map(str, numbers)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{name} masks of {shape} could not be measured: {finished.stderr.strip()}")
    return int(finished.stdout)


def cpu_peak(name: str, shape: Shape) -> int:
    """Bytes by which this process, which should be a fresh one, grows at most while it chooses a mask."""
    strategy = STRATEGIES[name]()
    draw_masks(strategy, patch_features(WARM_UP), WARM_UP.num_patches - WARM_UP.num_keep)()
    call = draw_masks(strategy, patch_features(shape), shape.num_patches - shape.num_keep)
    CLEAR.write_text(RESET_PEAK)
    before = _status_bytes("VmRSS")
    call()
    return max(_status_bytes("VmHWM") - before, 0)


def _status_bytes(field: str) -> int:
    """A line of ``/proc/self/status`` such as ``VmHWM:  123 kB``."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    mask, threads, *sizes = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(cpu_peak(mask, Shape(*map(int, sizes))))
