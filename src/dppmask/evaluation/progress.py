"""How far a long loop is: one line on stderr with rate and time left."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TextIO, TypeVar

from dppmask.evaluation import ranks

T = TypeVar("T")


def reported(
    items: Iterable[T],
    title: str,
    *,
    total: int,
    per_item: int = 1,
    unit: str = "images",
    interval: float = 30.0,
    stream: TextIO | None = None,
) -> Iterator[T]:
    """Pass items on and report how many are done.

    On a terminal the line is rewritten in place, at most ten times a second; elsewhere a new line appears
    every ``interval`` seconds, and none for a loop that is over before. Of several ranks the first reports.

    Args:
        items: What is counted.
        title: Start of the line.
        total: How many units there are in all.
        per_item: Units in each item; the last may hold fewer.
        unit: What is counted, in the plural.
        interval: Seconds between two lines in a file.
        stream: Where to; standard error by default.
    """
    if not ranks.is_first():
        yield from items
        return
    stream = stream or sys.stderr
    in_place = stream.isatty()
    pause = 0.1 if in_place else interval
    started = shown = time.perf_counter()
    done = 0
    for item in items:
        yield item
        done = min(done + per_item, total)
        now = time.perf_counter()
        if now - shown >= pause:
            shown = now
            line = progress_line(title, done, total, now - started, unit)
            print(
                f"\r\x1b[2K{line}" if in_place else line,
                end="" if in_place else "\n",
                file=stream,
                flush=True,
            )
    if in_place:
        line = progress_line(title, done, total, time.perf_counter() - started, unit)
        print(f"\r\x1b[2K{line}", file=stream, flush=True)


def progress_line(title: str, done: int, total: int, seconds: float, unit: str) -> str:
    """The text of one report.

    >>> progress_line("features of val", 50, 200, 5.0, "images")
    'features of val  50/200 images  10.0 images/s  left 0:00:15'
    """
    rate = done / max(seconds, 1e-9)
    left = timedelta(seconds=round((total - done) / rate)) if done else "unknown"
    return f"{title}  {done}/{total} {unit}  {rate:.1f} {unit}/s  left {left}"
