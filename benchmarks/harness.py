"""What all benchmarks share: timing with warm-up and spread, the machine's row, CSV."""

import csv
import importlib.metadata
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from dppmask.training.environment import describe_environment


class Timing(NamedTuple):
    """Seconds per call: median, 20 % and 80 % quantile of wall time, median processor time of all threads.

    On a machine that does other work as well, processor time is the steadier of the two.
    """

    median: float
    low: float
    high: float
    cpu: float


def measure(fn: Callable[[], object], repeats: int = 10, warmup: int = 2) -> Timing:
    """Time ``fn`` alone; work queued on a CUDA device counts."""
    return measure_in_turns({"": fn}, repeats=repeats, warmup=warmup)[""]


def measure_in_turns(
    functions: Mapping[str, Callable[[], object]], *, repeats: int = 10, warmup: int = 2
) -> dict[str, Timing]:
    """Time each function once per round, so that a change in the machine's load meets all of them."""
    for fn in functions.values():
        for _ in range(warmup):
            fn()
    calls: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, fn in functions.items():
            calls[name].append(_time_once(fn))
    return {name: _summarise(seconds) for name, seconds in calls.items()}


def machine(*packages: str) -> dict[str, object]:
    """Date, commit, hardware and versions, as columns for every row; ``packages`` are those of the rivals."""
    facts = describe_environment()
    hardware = facts["hardware"]
    return {
        "date": facts["date"],
        "commit": facts["commit"],
        "cpu": hardware["cpu"],
        "cpu_cores": hardware["cpu_cores"],
        "gpu": ", ".join(hardware["gpus"]),
        "python": facts["python"],
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy", *packages)},
    }


def write_rows(path: Path | str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV with one column per key of the first row."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _time_once(fn: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time of one call."""
    _wait()
    wall, cpu = time.perf_counter(), time.process_time()
    fn()
    _wait()
    return time.perf_counter() - wall, time.process_time() - cpu


def _summarise(calls: Sequence[tuple[float, float]]) -> Timing:
    wall, cpu = zip(*calls, strict=True)
    low, *_, high = statistics.quantiles(wall, n=5, method="inclusive") if len(wall) > 1 else wall * 2
    return Timing(statistics.median(wall), low, high, statistics.median(cpu))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
