"""The tables of a report: what was measured beside the paper's numbers, differences, costs."""

from collections.abc import Mapping
from statistics import fmean

from dppmask.figures.table import Cell, Column, Measured, Table
from dppmask.reproduce import experiments
from dppmask.reproduce.cells import Cells
from dppmask.reproduce.experiments import TRAINING, Experiment, Row
from dppmask.reproduce.summary import Difference, Over, beside_baseline, measured
from dppmask.reproduce.units import Job

BASELINES = {"random_encoder": "untrained encoder", "raw_pixels": "raw pixels", "chance": "chance"}
BEYOND = " †"
CLEAR = " *"
RESULTS_NOTE = "±: standard deviation over seeds."
PAPER_NOTE = " “paper”: its number, for its own data and networks."
BEYOND_NOTE = " †: not in the paper."
DIFFERENCES_NOTE = (
    "In brackets the 95 % interval of the mean difference, paired by seed (Student). *: it leaves out 0, "
    "with three seeds or more; about one difference in twenty does so by chance. “paper”: the difference of "
    "its numbers."
)


def results(job: Job, cells: Cells) -> Table | None:
    """Rows × columns, with the paper's number right of each measured one; None where there are no columns."""
    experiment = job.experiment
    if not experiment.columns:
        return None
    rows: list[Mapping[str, Cell]] = []
    for row in experiment.rows.values():
        shown: dict[str, Cell] = {"row": title_of(row)}
        for column in experiment.columns.values():
            found = measured(job, row, column, cells)
            shown[column.name] = _in_unit(found, column) if found else None
            shown[_paper(column.name)] = _or_none(row.paper.get(column.name), column)
        rows.append(shown)
    beyond = any(row.beyond for row in experiment.rows.values())
    cited = any(row.paper for row in experiment.rows.values())
    return Table(
        [Column("row", ""), *_columns(experiment)],
        rows,
        _baselines(job, cells),
        note=RESULTS_NOTE + PAPER_NOTE * cited + BEYOND_NOTE * beyond,
    )


def differences(job: Job, cells: Cells) -> Table | None:
    """Rows minus their baselines, paired by seed; None where no row has one or nothing is measured."""
    experiment = job.experiment
    rows: list[Mapping[str, Cell]] = []
    for row in experiment.rows.values():
        if row.baseline is None:
            continue
        baseline = experiment.rows[row.baseline]
        shown: dict[str, Cell] = {"row": difference_title(row, baseline)}
        for column in experiment.columns.values():
            found = beside_baseline(job, row, column, cells)
            shown[column.name] = difference_text(found, column.digits) if found else None
            if column.name in row.paper and column.name in baseline.paper:
                shown[_paper(column.name)] = (
                    f"{row.paper[column.name] - baseline.paper[column.name]:+.{column.digits}f}"
                )
        if len(shown) > 1 and any(shown.get(name) for name in experiment.columns):
            rows.append(shown)
    if not rows:
        return None
    return Table([Column("row", "difference"), *_columns(experiment)], rows, note=DIFFERENCES_NOTE)


def difference_text(found: Difference, digits: int) -> str:
    """``+0.30 [-0.10, +0.70]``; a single seed has no interval."""
    mean = f"{found.mean:+.{digits}f}"
    if found.seeds < 2:
        return mean
    return f"{mean} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]{CLEAR if found.clear else ''}"


def costs(job: Job, cells: Cells) -> Table | None:
    """Minutes of pre-training and of evaluation per run; None where nothing was trained."""
    rows: list[Mapping[str, Cell]] = []
    for row in job.experiment.rows.values():
        units = [unit for (name, _), unit in job.units.items() if name == row.name and unit.request]
        done = [[cell for key in unit.evaluations if (cell := cells.get(key))] for unit in units]
        trained = [c["timings"] for found in done for c in found if c["evaluation"] == TRAINING]
        if trained:
            scoring = [
                sum(c["timings"]["seconds"] for c in found if c["evaluation"] != TRAINING) for found in done
            ]
            rows.append(
                {
                    "row": title_of(row),
                    "runs": len(trained),
                    "training": fmean(timings["seconds"] for timings in trained) / 60,
                    "speed": fmean(timings["images_per_second"] for timings in trained),
                    "scoring": fmean(scoring) / 60,
                }
            )
    return (
        Table(
            _COSTS, rows, note="Means over runs. Time is counted once, however often a run was interrupted."
        )
        if rows
        else None
    )


_COSTS = (
    Column("row", ""),
    Column("runs", "runs", digits=0),
    Column("training", "pre-training, min", digits=1),
    Column("speed", "images/s", digits=0),
    Column("scoring", "evaluations, min", digits=1),
)


def _columns(experiment: Experiment) -> list[Column]:
    """Each column, and the paper's beside it where the paper has one."""
    shown = []
    for column in experiment.columns.values():
        shown.append(Column(column.name, column.title, None, column.scale, column.digits))
        if any(column.name in row.paper for row in experiment.rows.values()):
            shown.append(Column(_paper(column.name), "paper", None, 1.0, column.digits))
    return shown


def _baselines(job: Job, cells: Cells) -> list[Mapping[str, Cell]]:
    """What an untrained encoder, raw pixels and chance reach, where evaluations say so."""
    shown: list[Mapping[str, Cell]] = []
    for name, title in BASELINES.items():
        found = {
            column.name: _in_unit(over, column)
            for column in job.experiment.columns.values()
            if (over := _baseline(job, column, cells, name))
        }
        if found:
            shown.append({"row": title, **found})
    return shown


def _baseline(job: Job, column: experiments.Column, cells: Cells, name: str) -> Over | None:
    """One baseline over seeds; rows of one seed share it but for the size of their images."""
    found: dict[int, list[float]] = {}
    for row, seed in job.units:
        address = job.address(job.experiment.rows[row], column, seed)
        cell = cells.get(address.key) if address else None
        metrics = (cell or {}).get("baselines", {}).get(name, {})
        if address and address.metric in metrics:
            found.setdefault(seed, []).append(column.scale * metrics[address.metric])
    return Over({seed: fmean(values) for seed, values in sorted(found.items())}) if found else None


def title_of(row: Row) -> str:
    """As tables show it: with its place in a sweep, and marked if the paper does not have it."""
    at = "" if row.at is None else f", {row.at}"
    return f"{row.title}{at}{BEYOND if row.beyond else ''}"


def difference_title(row: Row, baseline: Row) -> str:
    """What is subtracted from what."""
    return f"{title_of(row)} − {title_of(baseline)}"


def _paper(name: str) -> str:
    return f"{name} of the paper"


def _in_unit(found: Over, column: experiments.Column) -> Measured:
    """A table multiplies by the column's scale, which is in these numbers already."""
    deviation = found.deviation or None  # what is the same for all seeds, as chance is, has no spread
    return Measured(found.mean / column.scale, deviation and deviation / column.scale)


def _or_none(value: float | None, column: experiments.Column) -> Cell:
    return None if value is None else f"{value:.{column.digits}f}"
