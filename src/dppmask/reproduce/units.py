"""Experiments at a scale as units of work: each pre-training once, with every evaluation wanted of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dppmask import specs
from dppmask.errors import UserError
from dppmask.evaluation.strategies import label_of
from dppmask.reproduce.experiments import TRAINING, Column, Experiment, Row
from dppmask.reproduce.keys import cell_key, evaluation_identity, fingerprint, run_key, training_identity
from dppmask.reproduce.request import Options, Request, evaluation, pretraining
from dppmask.reproduce.scales import Scale

OWN = "own"  # in an evaluation: the run's option of the same name, its mask among masks, its size of images


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one run, or what the training itself says.

    Attributes:
        name: Its name in the scale; "training".
        key: Of the cell.
        place: Its place among the evaluations of a run, the training first: one may read what another left.
        request: What one would type; None for the training itself.
        options: Every option as plain data.
        identity: What decides its numbers.
    """

    name: str
    key: str
    place: int = 0
    request: Request | None = None
    options: Options = field(default_factory=dict)
    identity: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """One pre-training with its evaluations; the smallest piece of work that is begun.

    Attributes:
        key: Of the pre-training; of the evaluations, if nothing is trained.
        title: What it is, for people: "table2: random masks, seed 0".
        scale: Name of the scale.
        method: Name of the scale's method; None if nothing is trained.
        seed: Of everything.
        request: What one would type to pre-train; None = nothing is trained.
        options: Every option of the pre-training as plain data.
        identity: What decides its weights.
        evaluations: By key of their cell.
    """

    key: str
    title: str
    scale: str
    method: str | None
    seed: int
    request: Request | None
    options: Options
    identity: Options
    evaluations: Mapping[str, Evaluation]


@dataclass(frozen=True)
class Address:
    """Where a number of a table is to be found.

    Attributes:
        key: Of the cell.
        metric: Name in its metrics.
    """

    key: str
    metric: str


@dataclass(frozen=True)
class Job:
    """One experiment at one scale.

    Attributes:
        experiment: With its rows expanded.
        units: By row and seed; none of rows that are only cited.
    """

    experiment: Experiment
    units: Mapping[tuple[str, int], Unit]

    def address(self, row: Row, column: Column, seed: int) -> Address | None:
        """Where a number is; None if this scale does not measure the column, or the row is only cited."""
        if row.cited:
            return None
        unit = self.units[row.name, seed]
        for found in unit.evaluations.values():
            if found.name == column.evaluation:
                return Address(found.key, _metric(column, unit.options))
        return None


def job_of(experiment: Experiment, scale: Scale) -> Job:
    """An experiment's units at a scale.

    Raises:
        UserError: If a recipe is missing or an option is wrong, naming the row.
    """
    experiment = swept(experiment, scale)
    wanted = {column.evaluation for column in experiment.columns.values()}
    names = [name for name in scale.evaluate if name in wanted]
    units = {}
    for row in experiment.rows.values():
        for seed in () if row.cited else scale.seeds:
            try:
                units[row.name, seed] = _unit(experiment, row, seed, names, scale)
            except UserError as error:
                raise UserError(f"{experiment.name}, row {row.name}: {error}") from None
    return Job(experiment, units)


def swept(experiment: Experiment, scale: Scale) -> Experiment:
    """Each row once for every value of the swept option; a table as it is.

    Raises:
        UserError: If the scale has no values for it.
    """
    if experiment.sweep is None:
        return experiment
    option = experiment.sweep
    if option not in scale.sweeps:
        raise UserError(f"scale {scale.name} has no values for {option}, which {experiment.name} sweeps")
    rows = {}
    for value in scale.sweeps[option]:
        for row in experiment.rows.values():
            rows[f"{row.name}@{value}"] = replace(
                row,
                name=f"{row.name}@{value}",
                pretrain=row.pretrain.then(Request((), {option: value})),
                baseline=row.baseline and f"{row.baseline}@{value}",
                at=value,
            )
    return replace(experiment, rows=rows)


def merged(jobs: Iterable[Job]) -> list[Unit]:
    """Every unit once, in order of appearance by seed; what several experiments want of one run is united."""
    found: dict[str, Unit] = {}
    for unit in (unit for job in jobs for unit in job.units.values()):
        known = found.get(unit.key)
        if known is None:
            found[unit.key] = unit
        else:
            found[unit.key] = replace(known, evaluations={**known.evaluations, **unit.evaluations})
    return sorted(found.values(), key=lambda unit: unit.seed)


def _unit(experiment: Experiment, row: Row, seed: int, names: Iterable[str], scale: Scale) -> Unit:
    title = f"{experiment.name}: {row.title}{'' if row.at is None else f', {row.at}'}, seed {seed}"
    if row.method is None:
        request, options, identity, key = None, row.pretrain.given(), {}, None
    else:
        request = scale.method(row.method).then(row.pretrain).then(Request((), {"seed": seed}))
        options = pretraining(request)
        identity = training_identity(options)
        key = run_key(identity)
    found = _evaluations([*names, *([] if key is None else [TRAINING])], scale, options, key, seed)
    if key is None:
        key = fingerprint(sorted(found))
    return Unit(key, title, scale.name, row.method, seed, request, options, identity, found)


def _evaluations(
    names: Iterable[str], scale: Scale, run: Options, key: str | None, seed: int
) -> dict[str, Evaluation]:
    def one(name: str) -> Evaluation:
        if name == TRAINING:
            return Evaluation(name, cell_key(key, None, seed))
        request = _owned(scale.evaluate[name], run)
        options = evaluation(request)
        identity = evaluation_identity(options)
        place = 1 + list(scale.evaluate).index(name)
        return Evaluation(name, cell_key(key, identity, seed), place, request, options, identity)

    return {found.key: found for found in map(one, names)}


def _owned(request: Request, run: Options) -> Request:
    """A request with "own" in the arguments of its protocol and data replaced by what the run has.

    Raises:
        UserError: If the run has no such option, or a pair where one number is needed.
    """
    options = dict(request.options)
    for option in ("protocol", "data"):
        if arguments := (options.get(option) or {}).get("init_args"):
            own = {name: _own(f"{option}.{name}", name, value, run) for name, value in arguments.items()}
            options[option] = {**options[option], "init_args": own}
    return replace(request, options=options)


def _own(option: str, name: str, value: Any, run: Options) -> Any:
    if name == "masks" and isinstance(value, list):
        return [run["mask"] if item == OWN else item for item in value]
    if value != OWN:
        return value
    found = run.get("image_size" if name == "size" else name)
    if not isinstance(found, int | float):
        raise UserError(f"{option} cannot be the run's own, which is {found!r}; give a value")
    return found


def _metric(column: Column, run: Options) -> str:
    if "{mask}" not in column.metric:
        return column.metric
    return column.metric.replace("{mask}", label_of(specs.build(run["mask"])))
