"""What a mask costs alone: every task of ``cases``, ours and rivals in turns in one run."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

import torch

from dppmask.bench import rivals
from dppmask.bench.arithmetic import Shape
from dppmask.bench.cases import CASES, Case
from dppmask.bench.device import capture, count_syncs
from dppmask.bench.harness import Row, Timing, is_installed, measure_in_turns, on_threads
from dppmask.bench.inputs import MASKS, OURS, STRATEGIES, Batch, backend, draw_masks, is_ours
from dppmask.bench.job import Job
from dppmask.bench.settings import Settings
from dppmask.dpp import gaussian_kernel, greedy_map
from dppmask.masks import MaskContext


def jobs(settings: Settings) -> Iterator[Job]:
    """One job a task, batch and number of threads: one thread and all on a CPU."""
    on_cpu = settings.device.type == "cpu"
    everything = torch.get_num_threads()
    for batch in settings.mask_batches():
        shape = settings.mask_shape(batch)
        yield Job("that ours and the rivals pick the same", partial(check_equal_picks, shape))
        for threads in sorted({1, everything} if on_cpu else {everything}):
            for task, cases in groupby(installed(CASES), key=lambda case: case.task):
                run = partial(compare, tuple(cases), shape, threads, settings)
                yield Job(task, run)


def installed(cases: Sequence[Case]) -> list[Case]:
    """Those whose package is there."""
    return [case for case in cases if is_installed(case.package)]


def missing_packages(cases: Sequence[Case] = CASES) -> list[str]:
    """Packages of rivals that are not installed."""
    return sorted({case.package for case in cases if not is_installed(case.package)})


def compare(cases: Sequence[Case], shape: Shape, threads: int, settings: Settings) -> list[Row]:
    """Rows of one task; ``ratio`` is our median time over that of the row, below 1 is faster than it."""
    batch = Batch(shape, settings.device)  # made here: a list of jobs holds no tensors
    with on_threads(threads):
        calls = {case.implementation: case.prepare(batch) for case in cases}
        timings = measure_in_turns(
            calls, repeats=settings.rounds, warmup=settings.warmup, limit=settings.limit
        )
        host = host_columns(cases[0].task, batch) if batch.device.type == "cuda" else {}
    return [
        shape_columns(shape)
        | {"task": case.task, "implementation": case.implementation, "dtype": case.dtype}
        | {"backend": backend(shape, batch.device) if is_ours(case.implementation) else ""}
        | timings[case.implementation].columns()
        | ratio_columns(timings[OURS], timings[case.implementation])
        | (case.work(shape).columns() if case.work else {})
        | {"threads": threads}
        | (host if case.implementation == OURS else {})
        for case in cases
    ]


def ratio_columns(ours: Timing, theirs: Timing) -> Row:
    """Our time over theirs, by the clock and by the processor's time."""
    return {
        "ratio": round(ours.median / theirs.median, 3),
        "cpu_ratio": round(ours.cpu / max(theirs.cpu, 1e-9), 3),
    }


def host_columns(task: str, batch: Batch) -> Row:
    """What a mask asks of the host, on a CUDA device; nothing for tasks that are no mask.

    ``graph_ms`` is the time on the device alone: of the mask replayed as a CUDA graph. Its noise is given, as
    a captured generator would be one on the device.
    """
    name = next((name for name, title in MASKS.items() if title == task), None)
    if name is None:
        return {}
    strategy, num_masked = STRATEGIES[name](), batch.shape.num_patches - batch.shape.num_keep
    syncs = count_syncs(draw_masks(strategy, batch.features, num_masked))
    noise = torch.rand(batch.features.shape[:2], device=batch.device)
    features = strategy.features(MaskContext.from_tokens(batch.features))
    graph = None if syncs else capture(partial(strategy.choose, features, noise, num_masked))
    columns: Row = {"host_syncs": syncs, "capturable": graph is not None}
    if graph is not None:
        columns["graph_ms"] = measure_in_turns({"": graph.replay})[""].columns()["median_ms"]
    return columns


def shape_columns(shape: Shape) -> Row:
    """The sizes of a batch of masks."""
    return {
        "batch": shape.batch,
        "num_patches": shape.num_patches,
        "num_keep": shape.num_keep,
        "feature_dim": shape.dim,
    }


def check_equal_picks(shape: Shape) -> list[Row]:
    """Correctness first: in float64 ours and both rivals pick the same patches of four images; no rows.

    Raises:
        RuntimeError: If they do not.
    """
    batch = Batch(shape._replace(batch=4), torch.device("cpu"))
    kernel, k = gaussian_kernel(batch.features.double()), shape.num_keep
    ours = greedy_map(kernel, k).items.tolist()
    theirs = {
        "NumPy loop": [rivals.numpy_greedy(one, k) for one in kernel.numpy()],
        "torch loop": rivals.torch_greedy(kernel, k).tolist(),
    }
    for name, items in theirs.items():
        if items != ours:
            raise RuntimeError(f"greedy_map and the {name} pick different patches; nothing was measured")
    return []
