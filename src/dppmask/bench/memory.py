"""The most memory a mask takes beside its input.

On a GPU: ``torch.cuda.max_memory_allocated``. On a CPU: the high-water mark of the resident memory of a fresh
process, which the kernel of the operating system keeps; so what libraries allocate past torch counts too, and
pages that the process had in reserve do not.
"""

from collections.abc import Iterator
from functools import partial

import torch

from dppmask.bench.arithmetic import Shape
from dppmask.bench.harness import Row
from dppmask.bench.inputs import MASKS, OURS, STRATEGIES, backend, draw_masks, patch_features
from dppmask.bench.job import Job
from dppmask.bench.masks import shape_columns
from dppmask.bench.peak import cpu_peak_of_fresh_process, is_told
from dppmask.bench.scaling import EXACT_UP_TO
from dppmask.bench.settings import Settings, shape_of

FORMS_KERNEL_UP_TO = 1024  # patches; beyond, no [N, N] matrix may be formed


def jobs(settings: Settings) -> Iterator[Job]:
    """One job a shape and mask; none where the system does not tell."""
    for shape in sizes(settings) if can_measure(settings.device) else []:
        for name in STRATEGIES:
            if name != "exact" or shape.num_patches <= EXACT_UP_TO:
                yield Job(f"{name} {shape}", partial(rows_of, name, shape, settings))


def can_measure(device: torch.device) -> bool:
    """Whether the system tells: torch does on a GPU, Linux on a CPU."""
    return device.type == "cuda" or is_told()


def sizes(settings: Settings) -> list[Shape]:
    """The masks of the backbone, and of more patches in smaller batches."""
    ratio = settings.mask_ratio
    first = settings.mask_shape(settings.mask_batches()[0])
    if settings.quick:
        return [first]
    return [
        first,
        shape_of(16, 784, first.dim, mask_ratio=ratio),
        shape_of(1, 4096, first.dim, mask_ratio=ratio),
    ]


def rows_of(name: str, shape: Shape, settings: Settings) -> list[Row]:
    """Peak and budget of one mask, in bytes."""
    if settings.device.type == "cuda":
        peak = cuda_peak(name, shape, settings.device)
    else:
        peak = cpu_peak_of_fresh_process(name, shape)
    budget = budget_bytes(shape)
    return [
        {**shape_columns(shape), "task": MASKS[name], "mask": name, "implementation": OURS}
        | {"backend": backend(shape, settings.device), "peak_bytes": peak, "budget_bytes": budget}
        | {"share_of_budget": round(peak / budget, 3), "threads": torch.get_num_threads()}
    ]


def budget_bytes(shape: Shape) -> int:
    """Three kernels in float32; beyond 1024 patches what rows of K picks and the features take."""
    batch, N, K, D = shape
    numbers = 3 * batch * N**2 if N <= FORMS_KERNEL_UP_TO else batch * N * (K + D)
    return 4 * numbers


def cuda_peak(name: str, shape: Shape, device: torch.device) -> int:
    """Bytes that torch allocates on the GPU at most while it chooses a mask."""
    call = draw_masks(
        STRATEGIES[name](), patch_features(shape).to(device), shape.num_patches - shape.num_keep
    )
    call()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
