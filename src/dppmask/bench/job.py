"""One measurement: what a section of the benchmark is made of."""

from collections.abc import Callable
from typing import NamedTuple

from dppmask.bench.harness import Row


class Job(NamedTuple):
    """Work that gives rows.

    Attributes:
        title: What is measured.
        run: Measures it.
    """

    title: str
    run: Callable[[], list[Row]]
