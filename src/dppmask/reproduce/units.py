"""Experiments at a scale as units of work: each pre-training once, with every evaluation wanted of it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dppmask import specs
from dppmask.errors import UserError
from dppmask.evaluation.strategies import label_of
from dppmask.figures.table import Table
from dppmask.reproduce.experiments import TRAINING, Column, Experiment, Row
from dppmask.reproduce.keys import cell_key, evaluation_identity, fingerprint, run_key, training_identity
from dppmask.reproduce.request import Options, Request, evaluation, pretraining
from dppmask.reproduce.scales import Scale
from dppmask.reproduce.settings import settings_table

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
        recorded: Whether its whole record is kept beside its cell, for a picture.
        timed: Whether nothing should run beside it.
        after: Name of the evaluation whose leavings in the run folder it reads.
    """

    name: str
    key: str
    place: int = 0
    request: Request | None = None
    options: Options = field(default_factory=dict)
    identity: Options = field(default_factory=dict)
    recorded: bool = False
    timed: bool = False
    after: str | None = None


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

    @property
    def timed(self) -> bool:
        """Whether nothing should run beside it."""
        return any(evaluation.timed for evaluation in self.evaluations.values())

    def with_what_they_need(self, wanted: Iterable[Evaluation]) -> list[Evaluation]:
        """Some evaluations and those that leave something for them, in the order in which to do them."""
        found = {evaluation.key: evaluation for evaluation in wanted}
        needed = {evaluation.after for evaluation in found.values()}
        found |= {key: one for key, one in self.evaluations.items() if one.name in needed}
        return sorted(found.values(), key=lambda evaluation: evaluation.place)


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
        units: By row and seed, none of rows that are only cited. Pictures show the first seed.
        settings: The table of an experiment that measures nothing.
    """

    experiment: Experiment
    units: Mapping[tuple[str, int], Unit]
    settings: Table | None = None

    @property
    def first_seed(self) -> int:
        """The seed that pictures show."""
        return next(seed for _, seed in self.units)

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """All that is to be measured, by key."""
        return united(found for unit in self.units.values() for found in unit.evaluations.values())

    def evaluation(self, row: str, name: str, seed: int) -> Evaluation | None:
        """An evaluation of a row by name; None if it is not done at this scale, or the row is only cited."""
        unit = self.units.get((row, seed))
        found = unit.evaluations.values() if unit else ()
        return next((evaluation for evaluation in found if evaluation.name == name), None)

    def address(self, row: Row, column: Column, seed: int) -> Address | None:
        """Where a number is; None if this scale does not measure the column, or the row is only cited."""
        found = self.evaluation(row.name, column.evaluation, seed)
        if found is None:
            return None
        return Address(found.key, _metric(column, self.units[row.name, seed].options))


def job_of(experiment: Experiment, scale: Scale) -> Job:
    """An experiment's units at a scale.

    Raises:
        UserError: If a recipe is missing or an option is wrong, naming the row.
    """
    experiment = swept(experiment, scale)
    own = scale.choices.get(experiment.name, ())
    experiment = replace(experiment, choices=(*experiment.choices, *own))
    seeds = scale.seeds if experiment.columns else scale.seeds[:1]
    units = {}
    for row in experiment.rows.values():
        for seed in () if row.cited else seeds:
            shown = _shown(experiment, row) if seed == seeds[0] else set()
            try:
                units[row.name, seed] = _unit(experiment, row, seed, shown, scale)
            except UserError as error:
                raise UserError(f"{experiment.name}, row {row.name}: {error}") from None
    settings = settings_table(experiment.settings, scale) if experiment.settings else None
    return Job(experiment, units, settings)


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
    pictures = (
        replace(one, rows=tuple(f"{row}@{value}" for value in scale.sweeps[option] for row in one.rows))
        for one in experiment.pictures
    )
    return replace(experiment, rows=rows, pictures=tuple(pictures))


def united(evaluations: Iterable[Evaluation]) -> dict[str, Evaluation]:
    """Each once, by key; its record is kept if anybody wants it."""
    found: dict[str, Evaluation] = {}
    for one in evaluations:
        known = found.get(one.key, one)
        found[one.key] = replace(one, recorded=one.recorded or known.recorded)
    return found


def merged(jobs: Iterable[Job]) -> list[Unit]:
    """Every unit once, in order of appearance by seed, those that are timed last.

    What several experiments want of one run is united.
    """
    found: dict[str, Unit] = {}
    for unit in (unit for job in jobs for unit in job.units.values()):
        known = found.get(unit.key)
        if known is None:
            found[unit.key] = unit
        else:
            both = [*known.evaluations.values(), *unit.evaluations.values()]
            found[unit.key] = replace(known, evaluations=united(both))
    return sorted(found.values(), key=lambda unit: (unit.timed, unit.seed))


def _shown(experiment: Experiment, row: Row) -> set[str]:
    """Names of the evaluations of which a row has a picture."""
    return {picture.evaluation for picture in experiment.pictures if row.name in picture.rows}


def _unit(experiment: Experiment, row: Row, seed: int, shown: Collection[str], scale: Scale) -> Unit:
    wanted = {*shown, *(column.evaluation for column in experiment.columns.values())}
    wanted |= {scale.after[name] for name in wanted if name in scale.after}
    names = [name for name in scale.evaluate if name in wanted]
    title = f"{experiment.name}: {row.title}{'' if row.at is None else f', {row.at}'}, seed {seed}"
    if row.method is None:
        request, options, identity, key = None, row.pretrain.given(), {}, None
    else:
        request = scale.method(row.method).then(row.pretrain).then(Request((), {"seed": seed}))
        options = pretraining(request)
        identity = training_identity(options)
        key = run_key(identity)
    requests = {name: _owned(scale.evaluation(name, row.method), options) for name in names}
    found = _evaluations(requests, shown, scale, key, seed)
    if key is None:
        key = fingerprint(sorted(found))
    return Unit(key, title, scale.name, row.method, seed, request, options, identity, found)


def _evaluations(
    requests: Mapping[str, Request], shown: Collection[str], scale: Scale, run: str | None, seed: int
) -> dict[str, Evaluation]:
    """The evaluations by key, and what the training itself says, if there is one."""

    def one(name: str, request: Request) -> Evaluation:
        options = evaluation(request)
        identity = evaluation_identity(options)
        return Evaluation(
            name,
            cell_key(run, identity, seed),
            1 + list(scale.evaluate).index(name),
            request,
            options,
            identity,
            recorded=name in shown,
            timed=specs.build(options["protocol"]).timed,
            after=scale.after.get(name),
        )

    trained = [] if run is None else [Evaluation(TRAINING, cell_key(run, None, seed))]
    return united([*(one(name, request) for name, request in requests.items()), *trained])


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
