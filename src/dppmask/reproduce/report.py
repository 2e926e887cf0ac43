"""The report: what was measured beside the paper, as Markdown and as one self-contained HTML file."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from dppmask.figures.option_sweep import Point, draw_option_sweep
from dppmask.figures.records import draw_records
from dppmask.figures.report import Block, Commands, Facts, Picture, Points, Section, Text, write_report
from dppmask.figures.row_dots import draw_row_dots
from dppmask.figures.style import figure_bytes
from dppmask.figures.table import Table
from dppmask.files import replace_file, write_text
from dppmask.reproduce import tables
from dppmask.reproduce.cells import Cells, hardware_of
from dppmask.reproduce.findings import findings
from dppmask.reproduce.runner import commands
from dppmask.reproduce.scales import Scale
from dppmask.reproduce.summary import measured
from dppmask.reproduce.units import Job
from dppmask.training.environment import describe_environment

TITLE = "The paper's experiments, measured again"

_LEAD = """
Every number below was measured by one command, `dppmask reproduce`, and stands beside the paper's. What the
paper leaves unstated was chosen here and is listed; where its own numbers disagree, a note says so.
"""


def write_reports(jobs: Sequence[Job], scale: Scale, cells: Cells, folder: Path) -> Path:
    """Write ``reproduce-SCALE.md`` and ``.html``, from cells alone; the path of the latter.

    Raises:
        UserError: If the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = {job.experiment.name: section(job, cells) for job in jobs}
    if found := findings(jobs, cells):
        sections = {"findings": found, **sections}
    lead = [Text(_LEAD), Text(f"Scale {scale.name}. {scale.about}")]
    path = folder / f"reproduce-{scale.name}.html"
    write_text(path.with_suffix(".md"), _markdown(lead, sections, folder, scale))
    return write_report(
        path,
        title=TITLE,
        lead=lead,
        sections=list(sections.values()),
        environment=describe_environment(),
    )


def section(job: Job, cells: Cells) -> Section:
    """One experiment."""
    experiment = job.experiment
    blocks: list[Block | None] = [
        Text(f"{_progress(job, cells)}The paper: {experiment.setting}"),
        job.settings,
        tables.results(job, cells),
        sweep_picture(job, cells),
        chart(job, cells),
        *pictures(job, cells),
        tables.differences(job, cells),
        Points("Where the paper disagrees with itself", experiment.conflicts)
        if experiment.conflicts
        else None,
        Points("Chosen here", experiment.choices) if experiment.choices else None,
        tables.costs(job, cells),
        _made_with(job, cells),
        Commands(_commands(job)) if job.units else None,
    ]
    heading = f"{experiment.reference}: {experiment.title}"
    return Section(heading, [block for block in blocks if block is not None])


def sweep_picture(job: Job, cells: Cells) -> Picture | None:
    """Every column against the swept option; None for a table, or where nothing is measured."""
    experiment = job.experiment
    if experiment.sweep is None:
        return None
    panels: dict[str, dict[str, list[Point]]] = {}
    for column in experiment.columns.values():
        lines: dict[str, list[Point]] = {}
        for row in experiment.rows.values():
            found = measured(job, row, column, cells)
            if found is not None and row.at is not None:
                lines.setdefault(row.title, []).append(Point(row.at, found.mean, found.deviation or 0.0))
        if lines:
            panels[column.title] = lines
    if not panels:
        return None
    option = experiment.sweep.replace("_", " ")
    return Picture(
        draw_option_sweep(panels, option=option), f"{experiment.title}: mean and standard deviation."
    )


def chart(job: Job, cells: Cells) -> Picture | None:
    """Rows as points, a panel for each column; None where it is not asked for, or nothing is measured."""
    experiment = job.experiment
    panels: dict[str, dict[str, list[float]]] = {}
    for column in experiment.columns.values() if experiment.chart else ():
        found = {row.title: measured(job, row, column, cells) for row in experiment.rows.values()}
        if rows := {title: list(over.by_seed.values()) for title, over in found.items() if over}:
            panels[column.title] = rows
    if not panels:
        return None
    return Picture(draw_row_dots(panels), f"{experiment.title}: every seed, and their mean.")


def pictures(job: Job, cells: Cells) -> list[Picture]:
    """What records look like; those that are not measured yet, or not at this scale, are left out."""
    shown = []
    for wanted in job.experiment.pictures:
        for name in wanted.rows:
            found = job.evaluation(name, wanted.evaluation, job.first_seed)
            if found is not None and cells.has(found):
                record = cells.record(found.key)
                row = job.experiment.rows[name]
                title = row.title if row.at is None else f"{row.title}, {row.at}"
                named = {**record, "subject": {**record["subject"], "source": title}}
                caption = wanted.caption if len(wanted.rows) == 1 else f"{title}: {wanted.caption}"
                shown.append(Picture(draw_records(record["protocol"], [named]), caption))
    return shown


def _progress(job: Job, cells: Cells) -> str:
    wanted = job.evaluations
    if not wanted:
        return ""
    done = sum(cells.has(evaluation) for evaluation in wanted.values())
    seeds = sorted({seed for _, seed in job.units})
    state = "All cells are" if done == len(wanted) else f"{done} of {len(wanted)} cells are"
    plural = "s" if len(seeds) > 1 else ""
    return f"{state} measured; seed{plural} {', '.join(map(str, seeds))}. "


def _commands(job: Job) -> list[str]:
    """What one would type for the first seed of every row; other seeds differ in --seed alone."""
    first = job.first_seed
    units = [unit for (_, seed), unit in job.units.items() if seed == first]
    typed = [commands(unit, evaluation) for unit in units for evaluation in unit.evaluations.values()]
    once = dict.fromkeys(line for lines in typed for line in lines)
    return sorted(once, key=lambda line: line.startswith("dppmask evaluate"))


def _made_with(job: Job, cells: Cells) -> Facts | None:
    """Commits, hardware, versions and dates of the cells."""
    found = [cell for unit in job.units.values() for key in unit.evaluations if (cell := cells.get(key))]
    if not found:
        return None
    dates = sorted(cell["date"] for cell in found)
    return Facts(
        {
            "measured": dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
            "commit": _each(cell["commit"] or "not in a checkout" for cell in found),
            "hardware": _each(hardware_of(cell) for cell in found),
            "versions": _each(
                f"torch {cell['versions']['torch']}, timm {cell['versions']['timm']}" for cell in found
            ),
        }
    )


def _each(values: Iterable[str]) -> str:
    return "; ".join(sorted(set(values)))


def _markdown(lead: Sequence[Block], sections: dict[str, Section], folder: Path, scale: Scale) -> str:
    parts = [f"# {TITLE}", *(_as_markdown(block, folder, "") for block in lead)]
    for name, section in sections.items():
        parts.append(f"## {section.heading}")
        pictures = 0
        for block in section.blocks:
            pictures += isinstance(block, Picture)
            parts.append(_as_markdown(block, folder, f"reproduce-{scale.name}-{name}-{pictures}.png"))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _as_markdown(block: Block, folder: Path, picture: str) -> str:
    """A block of the report; a picture becomes a file beside it."""
    match block:
        case Text():
            return block.text
        case Table():
            return block.to_markdown()
        case Commands():
            code = "\n".join(block.lines)
            return f"<details><summary>Commands</summary>\n\n```sh\n{code}\n```\n\n</details>"
        case Points():
            return "\n".join([f"{block.heading}:", "", *(f"- {point}" for point in block.points)])
        case Facts():
            return "\n".join(f"- {name}: {value}" for name, value in block.items.items())
        case Picture():
            content = block.figure if isinstance(block.figure, bytes) else figure_bytes(block.figure)
            with replace_file(folder / picture) as handle:
                handle.write(content)
            return f"![{block.description or block.caption.strip()}]({picture})\n\n{block.caption.strip()}"
        case _:
            raise TypeError(f"{type(block).__name__} has no form in Markdown")
