"""How the cost of a mask grows with patches N, visible patches K and the batch B."""

from collections.abc import Iterator
from functools import partial

import torch

from dppmask.bench.arithmetic import Shape
from dppmask.bench.harness import Row, measure_in_turns
from dppmask.bench.inputs import MASKS, OURS, STRATEGIES, Batch, backend, draw_masks
from dppmask.bench.job import Job
from dppmask.bench.masks import shape_columns
from dppmask.bench.settings import Settings, shape_of

BATCH = 16
EXACT_UP_TO = 784  # patches: with more, a benchmark of exact samples takes minutes


def jobs(settings: Settings) -> Iterator[Job]:
    """One job a shape; all masks of a shape are timed in turns."""
    for panel, shapes in sizes(settings).items():
        for shape in shapes:
            yield Job(f"{panel} {shape}", partial(rows_of, panel, shape, settings))


def sizes(settings: Settings) -> dict[str, list[Shape]]:
    """The shapes of each panel: one size grows, the others stay."""
    ratio, quick = settings.mask_ratio, settings.quick
    base = settings.mask_shape(BATCH)
    patches = (49, 100) if quick else (49, 100, 196, 400, 784, 1600)
    visible = (0.9, 0.75) if quick else (0.95, 0.9, 0.75, 0.5, 0.25)
    batches = (4, 8) if quick else (4, 16, 64, 256)
    return {
        "patches": [shape_of(BATCH, N, base.dim, mask_ratio=ratio) for N in patches],
        "visible": [shape_of(BATCH, base.num_patches, base.dim, mask_ratio=r) for r in visible],
        "batch": [base._replace(batch=batch) for batch in batches],
    }


def rows_of(panel: str, shape: Shape, settings: Settings) -> list[Row]:
    """The cost of every mask of one shape."""
    tokens = Batch(shape, settings.device).features
    num_masked = shape.num_patches - shape.num_keep
    calls = {
        name: draw_masks(strategy(), tokens, num_masked)
        for name, strategy in STRATEGIES.items()
        if name != "exact" or shape.num_patches <= EXACT_UP_TO
    }
    timings = measure_in_turns(
        calls, repeats=settings.rounds, warmup=settings.warmup, limit=settings.limit / 4
    )
    return [
        {"panel": panel, **shape_columns(shape), "task": MASKS[name], "mask": name}
        | {"implementation": OURS, "backend": backend(shape, settings.device)}
        | timing.columns()
        | {"threads": torch.get_num_threads()}
        for name, timing in timings.items()
    ]
