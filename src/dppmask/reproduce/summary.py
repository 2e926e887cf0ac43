"""Numbers over seeds: mean, spread, and differences paired by seed with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import fmean, stdev

from scipy.stats import t as student

from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import Column, Row
from dppmask.reproduce.units import Job

CONFIDENCE = 0.95
ENOUGH = 3  # seeds; of two the spread is hardly known


@dataclass(frozen=True)
class Over:
    """A quantity over seeds, in the unit of its column.

    Attributes:
        by_seed: Seed → value; seeds that are not measured yet are missing.
    """

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.by_seed.values())

    @property
    def deviation(self) -> float | None:
        """Standard deviation of single seeds (n − 1); None for one seed."""
        return stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None


@dataclass(frozen=True)
class Difference:
    """A row minus its baseline, seed by seed.

    Attributes:
        mean: Over the seeds that both have.
        low: Lower end of the 95 % interval, -inf for one seed.
        high: Upper end.
        seeds: How many seeds both have.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero, with enough seeds to say so."""
        return self.seeds >= ENOUGH and (self.low > 0 or self.high < 0)


def measured(job: Job, row: Row, column: Column, cells: Cells) -> Over | None:
    """What stands for a row and column; None where nothing is measured.

    Raises:
        KeyError: If a cell lacks the metric of a column that is not optional.
    """
    found = {}
    for name, seed in job.units:
        address = job.address(row, column, seed) if name == row.name else None
        if address is not None and (cell := cells.get(address.key)) is not None:
            values = {**cell["timings"], **cell["metrics"]}
            if address.metric in values or not column.optional:
                found[seed] = column.scale * values[address.metric]
    return Over(dict(sorted(found.items()))) if found else None


def difference(row: Over, baseline: Over) -> Difference | None:
    """The paired difference with Student's interval; None where no seed is common.

    Equal seeds have equal first weights, order of images and noise of masks, so what they share cancels.
    """
    values = [row.by_seed[seed] - baseline.by_seed[seed] for seed in row.by_seed if seed in baseline.by_seed]
    if not values:
        return None
    reach = _reach(values)
    return Difference(fmean(values), fmean(values) - reach, fmean(values) + reach, len(values))


def beside_baseline(job: Job, row: Row, column: Column, cells: Cells) -> Difference | None:
    """The difference of a row from its baseline; None where it has none, or nothing is measured."""
    if row.baseline is None:
        return None
    ours, theirs = (measured(job, one, column, cells) for one in (row, job.experiment.rows[row.baseline]))
    return difference(ours, theirs) if ours and theirs else None


def _reach(values: Sequence[float]) -> float:
    """Half the width of the interval of a mean."""
    if len(values) < 2:
        return inf
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return quantile * stdev(values) / sqrt(len(values))
