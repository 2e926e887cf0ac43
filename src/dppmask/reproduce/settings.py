"""A table of settings: the options of a training beside what the paper says of them; nothing is measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dppmask.errors import UserError, nearest
from dppmask.figures.table import Cell, Column, Table
from dppmask.reproduce.reading import check_keys
from dppmask.reproduce.request import Options, Request, evaluation, pretraining
from dppmask.reproduce.scales import Scale
from dppmask.specs import build, describe

LOST = "lost"  # what the paper says of a setting whose value is not in its text
ANY_MASK = Request(
    ("masks/random",)
)  # no run of a method is without one, and the settings do not depend on it
COLUMNS = (
    Column("title", "setting"),
    Column("paper", "paper"),
    Column("here", "here"),
    Column("option", "option"),
)


@dataclass(frozen=True)
class Setting:
    """One line of the table.

    Attributes:
        title: As the paper calls it.
        paper: What the paper says.
        option: Where its value is, as on the command line: "method.out_dim"; None = in no option.
        here: What the code does where there is no option.
    """

    title: str
    paper: str = LOST
    option: str | None = None
    here: str | None = None


@dataclass(frozen=True)
class Settings:
    """The table.

    Attributes:
        method: Name of a method of the scale.
        evaluation: Name of the evaluation of its runs that has the options; None = the pre-training has.
        rows: In order.
    """

    method: str
    evaluation: str | None
    rows: tuple[Setting, ...]


def settings_of(content: Any, where: str) -> Settings:
    """The settings of an experiment's file.

    Raises:
        UserError: Naming the place of the first thing that is wrong.
    """
    content = check_keys(content, where, required=("method", "rows"), optional=("evaluation",))
    rows = []
    for number, entry in enumerate(content["rows"], 1):
        place = f"{where}: row {number}"
        entry = check_keys(entry, place, required=("title",), optional=("paper", "option", "here"))
        if ("option" in entry) == ("here" in entry):
            raise UserError(f"{place} needs either option or here")
        rows.append(Setting(**{name: str(value) for name, value in entry.items()}))
    return Settings(content["method"], content.get("evaluation"), tuple(rows))


def settings_table(settings: Settings, scale: Scale) -> Table:
    """The paper's values beside those of a scale; a scale without the evaluation has none.

    Raises:
        UserError: If there is no such method or option.
    """
    options = _options(settings, scale)

    def here(row: Setting) -> str | None:
        if row.option is None or options is None:
            return row.here
        if row.option not in options:
            whose = settings.evaluation or settings.method
            raise UserError(f"{whose} has no option {row.option}; {nearest(row.option, options)}")
        return _text(options[row.option])

    rows: list[Mapping[str, Cell]] = [
        {
            "title": row.title,
            "paper": row.paper,
            "here": here(row),
            "option": None if row.option is None else f"--{row.option}",
        }
        for row in settings.rows
    ]
    return Table(COLUMNS, rows, note=f"“{LOST}”: the paper has the row, its available text not the value.")


def _options(settings: Settings, scale: Scale) -> Options | None:
    """Every option with its value, defaults filled in."""
    if settings.evaluation is None:
        return _flat(pretraining(scale.method(settings.method).then(ANY_MASK)))
    if settings.evaluation not in scale.evaluate:
        return None
    options = evaluation(scale.evaluation(settings.evaluation, settings.method))
    return _flat({**options, "protocol": describe(build(options["protocol"]))})


def _flat(options: Options) -> Options:
    """Arguments of classes under the names that they have on the command line."""
    flat: Options = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            inside = value["init_args"] if "class_path" in value else value
            flat |= {f"{name}.{inner}": item for inner, item in inside.items()}
        else:
            flat[name] = value
    return flat


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
