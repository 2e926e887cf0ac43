"""One table of results as text, Markdown and HTML; what is best is marked only where it is clearly so."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import hypot
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

CLEARLY = 3.0  # standard errors of the difference


@dataclass(frozen=True)
class Measured:
    """A number and how sure it is.

    Attributes:
        mean: The value.
        standard_error: Of the mean; None = not known, in a baseline: exact.
    """

    mean: float
    standard_error: float | None = None


Cell = Measured | float | str | None


@dataclass(frozen=True)
class Column:
    """How one quantity is shown.

    Attributes:
        key: Its name in the rows.
        title: Its heading, unit included.
        better: Which direction is better; None = neither is marked.
        scale: What numbers are multiplied with: 100 for shares in percent.
        digits: Behind the decimal point.
    """

    key: str
    title: str
    better: Literal["higher", "lower"] | None = None
    scale: float = 1.0
    digits: int = 1

    def show(self, cell: Cell) -> str:
        """The text of a cell; what is missing is a dash."""
        if cell is None:
            return "–"
        if isinstance(cell, str):
            return cell
        if not isinstance(cell, Measured):
            cell = Measured(cell)
        mean = f"{cell.mean * self.scale:.{self.digits}f}"
        if cell.standard_error is None:
            return mean
        return f"{mean} ± {cell.standard_error * self.scale:.{self.digits}f}"


@dataclass(frozen=True)
class Table:
    """Results side by side.

    Attributes:
        columns: The first one names the row.
        rows: What is compared: key of the column → cell.
        baselines: What it is compared with; set apart, never marked.
        title: Above the table.
        note: Below the table: what ± is, what was measured on what.
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Cell]]
    baselines: Sequence[Mapping[str, Cell]] = field(default_factory=list)
    title: str = ""
    note: str = ""

    def best(self, column: Column) -> int | None:
        """The row that beats all other rows and baselines by more than three standard errors, if one does.

        A row whose standard error is not known leaves the column unmarked.
        """
        cells = {index: _measured(row.get(column.key)) for index, row in enumerate(self.rows)}
        known = {index: cell for index, cell in cells.items() if cell is not None}
        if column.better is None or len(known) < 2 or any(c.standard_error is None for c in known.values()):
            return None
        sign = 1.0 if column.better == "higher" else -1.0
        best = max(known, key=lambda index: sign * known[index].mean)
        baselines = [_measured(row.get(column.key)) for row in self.baselines]
        rivals = [cell for index, cell in known.items() if index != best]
        rivals += [cell for cell in baselines if cell is not None]
        clear = all(sign * (known[best].mean - r.mean) > CLEARLY * _error(known[best], r) for r in rivals)
        return best if clear else None

    def to_text(self, *, width: int = 110) -> str:
        """For a terminal; ``*`` marks the best."""
        shown = RichTable(
            title=self.title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
        )
        for index, column in enumerate(self.columns):
            shown.add_column(column.title, justify="right" if index else "left")
        groups = self._groups("{} *")
        for group in groups:
            for cells in group:
                shown.add_row(*cells)
            if group is not groups[-1]:
                shown.add_section()
        console = Console(file=io.StringIO(), width=width)
        console.print(shown)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
        return "\n".join([*lines, *self._notes("*")]).strip("\n") + "\n"

    def to_markdown(self) -> str:
        """For a README; bold marks the best."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        title = [f"**{self.title}**", ""] if self.title else []
        head = [line([column.title for column in self.columns])]
        head.append("|---|" + "---:|" * (len(self.columns) - 1))
        rows, *baselines = self._groups("**{}**")
        body = [line(cells) for cells in rows]
        body += [line([f"*{first}*", *rest]) for group in baselines for first, *rest in group]
        notes = [text for note in self._notes("Bold") for text in ("", note)]
        return "\n".join([*title, *head, *body, *notes]) + "\n"

    def to_html(self) -> str:
        """For the report; ``<strong>`` marks the best."""

        def row(cells: Sequence[str], tag: str) -> str:
            first, *rest = cells
            scope = "col" if tag == "th" else "row"
            head = "".join(f'<th scope="col">{cell}</th>' for cell in rest)
            data = "".join(f"<td>{cell}</td>" for cell in rest)
            return f'<tr><th scope="{scope}">{first}</th>{head if tag == "th" else data}</tr>'

        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        head = row([escape(column.title) for column in self.columns], "th")
        bodies = "".join(
            "<tbody>" + "".join(row(cells, "td") for cells in group) + "</tbody>"
            for group in self._groups("<strong>{}</strong>", escape)
        )
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in self._notes("Bold"))
        table = f"<table>{caption}<thead>{head}</thead>{bodies}</table>"
        return f'<div class="scroll">{table}</div>{notes}'

    def _groups(self, mark: str, clean: Callable[[str], str] = str) -> list[list[list[str]]]:
        """Rows and, where there are some, baselines, as texts; the best ones put into ``mark``."""
        best = {column.key: self.best(column) for column in self.columns}

        def text(column: Column, cell: Cell, *, is_best: bool) -> str:
            shown = clean(column.show(cell))
            return mark.format(shown) if is_best else shown

        rows = [
            [text(c, row.get(c.key), is_best=best[c.key] == index) for c in self.columns]
            for index, row in enumerate(self.rows)
        ]
        baselines = [[text(c, row.get(c.key), is_best=False) for c in self.columns] for row in self.baselines]
        return [rows, baselines] if baselines else [rows]

    def _notes(self, mark: str) -> list[str]:
        """The note, and what the mark means if there is one."""
        marked = any(self.best(column) is not None for column in self.columns)
        meaning = f"{mark} marks what beats the rest of its column by more than {CLEARLY:g} standard errors."
        return [note for note in (self.note, meaning if marked else "") if note]


def _measured(cell: Cell) -> Measured | None:
    if isinstance(cell, Measured):
        return cell
    return Measured(cell) if isinstance(cell, int | float) else None


def _error(one: Measured, other: Measured) -> float:
    return hypot(one.standard_error or 0.0, other.standard_error or 0.0)
