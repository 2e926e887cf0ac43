"""What all measurements share: timing with warm-up and spread, threads, the machine, CSV."""

import csv
import importlib.util
import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits

from dppmask.files import write_text
from dppmask.training.environment import describe_environment, package_version

Row = dict[str, object]

FEWEST_ROUNDS = 3  # also where the time is up
SHORTEST = 0.005  # seconds: a shorter call is timed several at a time
MOST_CALLS = 100


class Timing(NamedTuple):
    """How long one call takes.

    On a machine that does other work as well, processor time is the steadier of the two.

    Attributes:
        median: Seconds of wall time.
        low: Its 20 % quantile.
        high: Its 80 % quantile.
        cpu: Median processor time of all threads, in seconds.
        repeats: How often it was timed.
        warmup: How often it ran before.
        calls: Calls in a row that make one timing.
    """

    median: float
    low: float
    high: float
    cpu: float
    repeats: int
    warmup: int
    calls: int

    def columns(self) -> Row:
        """As part of a row, in milliseconds."""
        times = {"median": self.median, "low": self.low, "high": self.high, "cpu": self.cpu}
        columns: Row = {f"{name}_ms": float(f"{1e3 * seconds:.4g}") for name, seconds in times.items()}
        return columns | {"repeats": self.repeats, "warmup": self.warmup, "calls": self.calls}


def measure_in_turns(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 10,
    warmup: int = 2,
    limit: float = float("inf"),
) -> dict[str, Timing]:
    """Time each function once per round, so that a change in the machine's load meets all of them.

    Work queued on a CUDA device counts.

    Args:
        functions: Name → what to time.
        repeats: Number of rounds.
        warmup: Calls of each function beforehand, at least 1.
        limit: Seconds after the warm-up from which no further round begins; three are made even so, if as
            many are wanted.
    """
    calls = {name: _calls_per_timing(fn, warmup) for name, fn in functions.items()}
    started = time.perf_counter()
    timed: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for done in range(repeats):
        if done >= FEWEST_ROUNDS and time.perf_counter() - started > limit:
            break
        for name, fn in functions.items():
            timed[name].append(_time(fn, calls[name]))
    return {name: _summarise(timed[name], warmup, calls[name]) for name in functions}


def _calls_per_timing(fn: Callable[[], object], warmup: int) -> int:
    """Warm up; how many calls make a timing long enough to be read off a clock."""
    shortest = min((_time(fn, 1)[0] for _ in range(warmup)), default=SHORTEST)  # others were interrupted
    return min(max(round(SHORTEST / max(shortest, 1e-9)), 1), MOST_CALLS)


def _time(fn: Callable[[], object], calls: int) -> tuple[float, float]:
    """Wall time and processor time of one of ``calls`` calls in a row."""
    wait_for_device()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        fn()
    wait_for_device()
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def _summarise(timed: Sequence[tuple[float, float]], warmup: int, calls: int) -> Timing:
    wall, cpu = zip(*timed, strict=True)
    low, *_, high = statistics.quantiles(wall, n=5, method="inclusive") if len(wall) > 1 else wall * 2
    return Timing(statistics.median(wall), low, high, statistics.median(cpu), len(wall), warmup, calls)


def wait_for_device() -> None:
    """Wait for all work that was queued on a CUDA device."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """A block in which torch and the libraries under NumPy use so many threads."""
    before = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def is_installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def machine(*packages: str) -> Row:
    """Date, commit, hardware and versions, as columns for every row; a package that is missing is ""."""
    facts = describe_environment()
    hardware = facts["hardware"]
    return {
        "date": facts["date"],
        "commit": facts["commit"],
        "cpu": hardware["cpu"],
        "cpu_cores": hardware["cpu_cores"],
        "gpu": ", ".join(hardware["gpus"]),
        "python": facts["python"],
        **{name: package_version(name) or "" for name in ("torch", "numpy", *packages)},
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV with every column that any row has; a folder that is missing is made."""
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
