"""``bench``: measure, write CSV, pictures and a summary, and say what came out."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from dppmask.bench import features, ibot_step, masks, memory, plots, scaling, step, tables
from dppmask.bench.arithmetic import Machine
from dppmask.bench.device import measure_machine, rate_columns
from dppmask.bench.floors import run_floors
from dppmask.bench.harness import Row, is_installed, machine, write_rows
from dppmask.bench.job import Job
from dppmask.bench.settings import STEP_BATCH, Settings
from dppmask.bench.table9 import table9
from dppmask.errors import UserError, nearest
from dppmask.evaluation.progress import reported
from dppmask.evaluation.run import choose_device
from dppmask.figures.style import save_figure
from dppmask.figures.table import Table
from dppmask.files import write_text

DEFAULT_BACKBONE = "vit_small_patch16_224"
PACKAGES = ("timm", "transformers", "dppy", "numba", "triton")  # whose versions every row states


class Section(NamedTuple):
    """One part of the benchmark.

    Attributes:
        jobs: What it measures.
        draw: Its picture.
        show: Its tables.
    """

    jobs: Callable[[Settings, Machine], Iterator[Job]]
    draw: Callable[[Sequence[Row]], Figure]
    show: Callable[[Sequence[Row]], list[Table]]


SECTIONS = {
    "masks": Section(lambda s, _: masks.jobs(s), plots.draw_masks, lambda rows: [tables.masks_table(rows)]),
    "step": Section(step.jobs, plots.draw_step, lambda rows: [tables.step_table(rows), table9(rows)]),
    "ibot": Section(lambda s, _: ibot_step.jobs(s), plots.draw_step, lambda rows: [tables.ibot_table(rows)]),
    "features": Section(
        lambda s, _: features.jobs(s), plots.draw_features, lambda rows: [tables.features_table(rows)]
    ),
    "scaling": Section(lambda s, _: scaling.jobs(s), plots.draw_scaling, lambda rows: []),
    "memory": Section(
        lambda s, _: memory.jobs(s), plots.draw_memory, lambda rows: [tables.memory_table(rows)]
    ),
}


def bench(
    *,
    sections: Sequence[str] = (),
    backbone: Sequence[str] = (),
    batch_size: Sequence[int] = (),
    device: str = "auto",
    mask_ratio: float = 0.75,
    image_size: int | tuple[int, int] = 224,
    patch_size: int = 16,
    repeats: int = 10,
    quick: bool = False,
    out: str | None = None,
) -> str:
    """Measure what masks cost, alone and in the training step, beside what others have.

    Args:
        sections: masks (alone, against rivals), step and ibot (the training step of MAE, and of iBOT, with
            each mask), features (their extraction, against a plain loop over timm's model), scaling (growth
            in patches, visible patches and batch), memory; may be repeated, all of them by default.
        backbone: timm architectures of the step, several are taken in turn; the first also decides how long
            the features of the masks are. ViT-S/16 by default.
        batch_size: Images per batch, several are taken in turn. By default on a CPU 64 for masks, 4 for steps
            of MAE and 2 of iBOT, 8 for features; on a GPU 256, but 64 for iBOT.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        mask_ratio: Share of hidden patches.
        image_size: Side of the images in pixels, or (height, width).
        patch_size: Side of a patch in pixels.
        repeats: Timings per number; fewer, but at least three, where one takes very long.
        quick: Two timings and small sizes, to see that it runs.
        out: Folder for SECTION_DEVICE.csv, the pictures and summary_DEVICE.md; by default nothing is written.

    Returns:
        The tables, as text.

    Raises:
        UserError: If an option is outside its range, or names no section, architecture or device.
    """
    command = command_line(dict(locals()))
    chosen = check_sections(sections)
    settings = check_settings(
        Settings(
            _torch_device(device),
            tuple(backbone) or (DEFAULT_BACKBONE,),
            tuple(batch_size),
            mask_ratio,
            image_size if isinstance(image_size, int) else (image_size[0], image_size[1]),
            patch_size,
            repeats,
            quick,
        )
    )
    notes = what_is_left_out(chosen, settings)
    for note in notes:
        print(note, file=sys.stderr)
    folder = None if out is None else Path(out)
    speed = measure_machine(settings.device, quick=quick)
    facts = {"device": settings.device.type, **machine(*PACKAGES), **rate_columns(speed), "command": command}
    rows = measure(chosen, settings, speed, facts, folder)
    shown = [table for name in chosen if rows[name] for table in SECTIONS[name].show(rows[name])]
    if known := [row for name in ("masks", "step") for row in rows.get(name, [])]:
        shown.append(run_floors(known, speed))
    if folder is not None:
        write_pictures(folder, settings.device.type, rows)
        write_summary(folder, facts, shown, notes)
    return "\n".join([*(table.to_text(width=160) for table in shown), *notes])


def command_line(options: Mapping[str, object]) -> str:
    """The command that measures the same again: every option that is not at its default, but the folder."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(bench).parameters.items()}
    given = {name: value for name, value in options.items() if value != defaults[name] and name != "out"}
    return " ".join(["dppmask bench", *(_option(name, value) for name, value in given.items())])


def check_sections(sections: Sequence[str]) -> list[str]:
    """The sections, in the order in which they run.

    Raises:
        UserError: If there is no such section.
    """
    for name in sections:
        if name not in SECTIONS:
            raise UserError(
                f"sections must be of {', '.join(SECTIONS)}, got {name!r}; {nearest(name, SECTIONS)}"
            )
    return [name for name in SECTIONS if name in sections or not sections]


def check_settings(settings: Settings) -> Settings:
    """The settings, if something can be measured with them.

    Raises:
        UserError: Naming the first option that is wrong.
    """
    if settings.repeats < 1:
        raise UserError(f"repeats must be at least 1, got {settings.repeats}")
    for size in settings.batch_sizes:
        if size < 1:
            raise UserError(f"batch_size must be at least 1, got {size}")
    for backbone in settings.backbones:
        settings.size(backbone)
    try:
        settings.mask_shape(1)
    except ValueError as error:
        raise UserError(str(error)) from None
    return settings


def what_is_left_out(sections: Sequence[str], settings: Settings) -> list[str]:
    """A line for everything that cannot be measured here."""
    missing = masks.missing_packages() if "masks" in sections else []
    if "step" in sections and not is_installed(step.RIVAL):
        missing.append(step.RIVAL)
    notes = [f"{name} is not installed: left out; pip install {name} brings it in" for name in missing]
    if "memory" in sections and not memory.can_measure(settings.device):
        notes.append("memory is left out: on a CPU it is read from Linux's /proc, which this system lacks")
    return notes


def measure(
    sections: Sequence[str], settings: Settings, speed: Machine, facts: Row, folder: Path | None
) -> dict[str, list[Row]]:
    """Run every job and add the facts to its rows, which are on disk as soon as they are known."""
    rows: dict[str, list[Row]] = {name: [] for name in sections}
    jobs = [(name, job) for name in sections for job in SECTIONS[name].jobs(settings, speed)]
    for name, job in reported(jobs, "bench", total=len(jobs), unit="measurements", interval=5.0):
        try:
            rows[name] += [row | facts for row in job.run()]
        except torch.OutOfMemoryError:
            print(f"{name}, {job.title}: left out, the device has too little memory", file=sys.stderr)
        if folder is not None and rows[name]:
            write_rows(folder / f"{name}_{settings.device.type}.csv", rows[name])
    return rows


def write_pictures(folder: Path, device: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """A picture of each section beside its CSV."""
    for name, section_rows in rows.items():
        if section_rows:
            save_figure(SECTIONS[name].draw(section_rows), folder / f"{name}_{device}.png")


def write_summary(folder: Path, facts: Row, shown: Sequence[Table], notes: Sequence[str]) -> None:
    """All tables as Markdown, under what they were made with."""
    head = f"# What masks cost, {facts['device']}\n"
    made_with = (
        f"`{facts['command']}`, commit {facts['commit']}, {facts['date']}, torch {facts['torch']}, "
        f"{facts['gpu'] or facts['cpu']}.\n"
    )
    text = "\n".join([head, made_with, *(table.to_markdown() for table in shown), *notes])
    write_text(folder / f"summary_{facts['device']}.md", text.rstrip("\n") + "\n")


def _option(name: str, value: object) -> str:
    """As it is typed: a switch, a list, a value."""
    if value is True:
        return f"--{name}"
    items = f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
    return f"--{name} {items}"


def _torch_device(name: str) -> torch.device:
    device = torch.device(choose_device(name))
    if device.type not in STEP_BATCH:
        raise UserError(f"device must be 'auto', 'cpu' or 'cuda', got {name!r}")
    return device
