"""An experiment: rows × columns of a table or figure, with the paper's numbers, pictures, or settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dppmask.errors import UserError, nearest
from dppmask.figures.table import Column as ShownColumn
from dppmask.recipes import shipped_recipes
from dppmask.reproduce.reading import EXPERIMENTS, check_keys, experiment_names, read_mapping
from dppmask.reproduce.request import Request
from dppmask.reproduce.settings import Settings, settings_of

_MEASURED = ("rows", "columns", "pictures", "method", "baseline", "sweep", "chart")
TRAINING = "training"  # the evaluation that is no evaluation: what the training itself says


@dataclass(frozen=True)
class Column:
    """One quantity.

    Attributes:
        name: Its key in the rows' paper values.
        title: Its heading, unit included.
        evaluation: Which evaluation of the scale gives it, or "training".
        metric: Its name among the metrics or timings; "{mask}" stands for the label of the row's own mask.
        better: Which direction is better; None = neither.
        percent: Whether shares are shown in percent.
        digits: Behind the decimal point.
        optional: Whether a row may lack the metric; otherwise that is an error.
        learned: Whether it says how good the learned features are, not what masks do or how hard they are.
    """

    name: str
    title: str
    evaluation: str
    metric: str
    better: Literal["higher", "lower"] | None = None
    percent: bool = True
    digits: int = 2
    optional: bool = False
    learned: bool = True

    def shown(self, key: str | None = None) -> ShownColumn:
        """How a table shows it."""
        return ShownColumn(key or self.name, self.title, self.better, self.scale, self.digits)

    @property
    def scale(self) -> float:
        """What a measured number is multiplied with to have the paper's unit."""
        return 100.0 if self.percent else 1.0


@dataclass(frozen=True)
class Row:
    """What is compared: one pre-training per seed.

    Attributes:
        name: Its key.
        title: As the table shows it.
        method: Name of a method of the scale; None = nothing is trained.
        pretrain: What it has beyond the scale's options: its mask, above all.
        paper: Name of a column → the paper's number, in its unit.
        beyond: Whether the paper does not have this row.
        baseline: Name of the row it is compared with; None = none.
        at: The value of the swept option, if one is swept.
        cited: Whether nothing is measured: there is no such mask here, only what the paper says of it.
    """

    name: str
    title: str
    method: str | None
    pretrain: Request
    paper: Mapping[str, float] = field(default_factory=dict)
    beyond: bool = False
    baseline: str | None = None
    at: float | None = None
    cited: bool = False


@dataclass(frozen=True)
class Picture:
    """What a record of an evaluation looks like, as ``dppmask plot`` draws it: one for each row.

    Attributes:
        caption: What is to be seen.
        evaluation: Which evaluation of the scale; its record is that of the scale's first seed.
        rows: Names of the rows.
    """

    caption: str
    evaluation: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    Attributes:
        name: "table2".
        title: What it shows.
        reference: Where the paper has it.
        setting: What the paper did, in sentences.
        rows: By name, in order; none where there are settings only.
        columns: By name, in order; none where there are pictures or settings only.
        choices: What the paper leaves open, and what was chosen here.
        conflicts: Where the paper's own numbers or sentences disagree.
        sweep: The option that varies along the x-axis; None for a table.
        pictures: In order.
        chart: Whether rows and columns are drawn as points too.
        settings: Of what is shown beside the paper's; None where the rest is measured.
    """

    name: str
    title: str
    reference: str
    setting: str
    rows: Mapping[str, Row]
    columns: Mapping[str, Column]
    choices: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    sweep: str | None = None
    pictures: tuple[Picture, ...] = ()
    chart: bool = False
    settings: Settings | None = None


def load_experiment(name: str) -> Experiment:
    """A shipped experiment by name, or one of your own by the path of its file.

    Raises:
        UserError: If there is none, or its file says something that is not known.
    """
    path = Path(name) if name.endswith(".yaml") else shipped_recipes().get(EXPERIMENTS + name)
    if path is None or ("/" in name and not path.is_file()):
        raise UserError(f"there is no experiment {name!r}; {nearest(name, [*experiment_names(), 'all'])}")
    return experiment_of(path.stem, read_mapping(path), where=str(path))


def experiment_of(name: str, content: Mapping[str, Any], *, where: str) -> Experiment:
    """An experiment from the content of its file.

    Raises:
        UserError: Naming the place of the first thing that is wrong.
    """
    content = check_keys(
        content,
        where,
        required=("title", "reference", "setting"),
        optional=(*_MEASURED, "settings", "choices", "conflicts"),
    )
    if "settings" in content:
        for key in _MEASURED:
            if key in content:
                raise UserError(f"{where} has settings, so nothing is measured; leave out {key} or settings")
    elif not content.get("rows"):
        raise UserError(f"{where} needs rows")
    elif not (content.get("columns") or content.get("pictures")):
        raise UserError(f"{where} needs columns or pictures")
    columns = {
        key: _column(key, entry, f"{where}: column {key}")
        for key, entry in (content.get("columns") or {}).items()
    }
    rows = {
        key: _row(key, entry, content, f"{where}: row {key}")
        for key, entry in (content.get("rows") or {}).items()
    }
    for row in rows.values():
        if row.baseline is not None and row.baseline not in rows:
            raise UserError(
                f"{where}: row {row.name}: baseline {row.baseline!r} is no row; {nearest(row.baseline, rows)}"
            )
        for column in row.paper:
            if column not in columns:
                raise UserError(
                    f"{where}: row {row.name}: paper names no column {column}; {nearest(column, columns)}"
                )
    return Experiment(
        name,
        content["title"],
        content["reference"],
        content["setting"].strip(),
        rows,
        columns,
        tuple(content.get("choices", ())),
        tuple(content.get("conflicts", ())),
        content.get("sweep"),
        tuple(
            _picture(entry, rows, f"{where}: picture {number}")
            for number, entry in enumerate(content.get("pictures") or (), 1)
        ),
        content.get("chart", False),
        settings_of(content["settings"], f"{where}: settings") if "settings" in content else None,
    )


def _column(name: str, entry: Any, where: str) -> Column:
    known = {"title", "better", "percent", "digits", "optional", "learned"}
    return Column(
        name,
        **check_keys(entry, where, required=("evaluation", "metric"), optional=known)
        | {"title": entry.get("title", name)},
    )


def _picture(entry: Any, rows: Mapping[str, Row], where: str) -> Picture:
    """Of all rows, where none are named."""
    entry = check_keys(entry, where, required=("caption", "evaluation"), optional=("rows",))
    if entry["evaluation"] == TRAINING:
        raise UserError(f"{where}: a training leaves no record to draw; name an evaluation of the scales")
    named = entry.get("rows", list(rows))
    for name in named:
        if name not in rows:
            raise UserError(f"{where}: {name!r} is no row; {nearest(str(name), rows)}")
    return Picture(entry["caption"].strip(), entry["evaluation"], tuple(named))


def _row(name: str, entry: Any, content: Mapping[str, Any], where: str) -> Row:
    """Options of the file's top level hold for every row that does not say otherwise."""
    entry = check_keys(
        entry,
        where,
        required=("title",),
        optional=("method", "pretrain", "paper", "beyond", "baseline", "cited"),
    )
    if entry.get("cited") and entry.get("pretrain"):
        raise UserError(f"{where} is cited, so nothing is measured; leave out cited or pretrain")
    baseline = entry.get("baseline", content.get("baseline"))
    return Row(
        name,
        entry["title"],
        entry.get("method", content.get("method")),
        Request.of(entry.get("pretrain") or {}),
        entry.get("paper", {}),
        entry.get("beyond", False),
        None if baseline == name else baseline,
        cited=entry.get("cited", False),
    )
