"""What an experiment would cost, before anything starts: runs, arithmetic, hours, data."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from dppmask.figures.table import Cell, Column, Table
from dppmask.reproduce.cells import Cells
from dppmask.reproduce.machine import Machine
from dppmask.reproduce.runner import missing
from dppmask.reproduce.scales import Scale
from dppmask.reproduce.units import Job, Unit
from dppmask.training.arithmetic import COUNTED_OPTIONS, flops_per_image


@dataclass(frozen=True)
class Training:
    """Runs of one length.

    Attributes:
        method: Name of the scale's method.
        epochs: Passes over the data.
        images: In the data; None = not known.
        batch: Images per optimiser step.
        devices: That train one run together.
        runs: How many.
        flops: Floating-point operations per image, averaged over the runs.
        images_per_second: Measured, of all devices together; None = not yet.
        assumed: Operations per second of one device, for what is not measured; None = nothing is assumed.
    """

    method: str
    epochs: int
    images: int | None
    batch: int
    devices: int
    runs: int
    flops: float
    images_per_second: float | None = None
    assumed: float | None = None

    @property
    def steps(self) -> int | None:
        """Optimiser steps of one run; what does not fill a batch is left out."""
        return None if self.images is None else self.epochs * (self.images // self.batch)

    @property
    def speed(self) -> float | None:
        """Images per second of all devices together, measured or assumed."""
        if self.images_per_second is None and self.assumed is not None:
            return self.devices * self.assumed / self.flops
        return self.images_per_second

    @property
    def images_seen(self) -> int | None:
        """By all runs together."""
        return None if self.steps is None else self.runs * self.steps * self.batch

    @property
    def hours(self) -> float | None:
        """Of one device, for all runs."""
        if self.images_seen is None or self.speed is None:
            return None
        return self.devices * self.images_seen / self.speed / 3600

    def row(self) -> Mapping[str, Cell]:
        """As the plan shows it."""
        images, steps = _number(self.images), _number(self.steps)
        guessed = " (assumed)" if self.images_per_second is None else ""
        return {
            "what": f"pre-train {self.method}" + (f", {self.devices} devices" if self.devices > 1 else ""),
            "count": self.runs,
            "each": f"{self.epochs} epochs x {images} images / {self.batch} = {steps} steps",
            "flop": None if self.images_seen is None else f"{self.images_seen * self.flops:.1e}",
            "speed": None if self.speed is None else f"{self.speed:.0f} images/s{guessed}",
            "hours": self.hours,
        }


@dataclass(frozen=True)
class Scoring:
    """Evaluations of one kind.

    Attributes:
        name: Name of the scale's evaluation.
        count: How many.
        seconds: Measured, each; None = not yet.
        devices: Each takes one.
    """

    name: str
    count: int
    seconds: float | None
    devices: int = 1

    @property
    def hours(self) -> float | None:
        """Of one device, for all of them."""
        return None if self.seconds is None else self.count * self.seconds / 3600

    def row(self) -> Mapping[str, Cell]:
        """As the plan shows it."""
        speed = None if self.seconds is None else f"{self.seconds:.0f} s"
        return {"what": f"evaluate {self.name}", "count": self.count, "speed": speed, "hours": self.hours}


def plan(jobs: Sequence[Job], units: Sequence[Unit], scale: Scale, cells: Cells, machine: Machine) -> str:
    """The plan as text: what is done already, what is left, what it costs and what data it needs."""
    left = [unit for unit in units if missing(unit, cells)]
    costs: list[Training | Scoring] = [*trainings(left, scale, cells), *scorings(left, scale, cells)]
    hours = [cost.hours for cost in costs]
    known = sum(value for value in hours if value is not None)
    more = " and what is not measured yet" if None in hours else ""
    rate = scale.assumed
    assumed = f" Assumed: {rate.tflops:g} TFLOP/s, {rate.hardware}." if rate else ""
    waiting = sum(_waiting(cost, machine.jobs) for cost in costs)
    total = f"{known:.2f} device hours{more}; {waiting:.2f} hours with {machine.jobs} at a time"
    return "\n".join(
        [
            f"{scale.name}: {scale.about}",
            _experiments(jobs, cells).to_text(),
            Table(_COSTS, [cost.row() for cost in costs], note=f"Left to do: {total}.{assumed}").to_text(
                width=150
            ),
            _data(left, machine),
        ]
    )


def trainings(units: Iterable[Unit], scale: Scale, cells: Cells) -> list[Training]:
    """Pre-trainings of units by method and length."""
    alike: defaultdict[tuple[str, int, int | None, int, int], list[Unit]] = defaultdict(list)
    for unit in units:
        if unit.request is not None:
            options = unit.options
            devices = options["devices"] * options["num_nodes"]
            length = options["epochs"], num_images(unit, scale), batch_of(options)
            alike[unit.method or "", *length, devices].append(unit)
    return [
        Training(
            *group,
            runs=len(runs),
            flops=fmean(map(_flops, runs)),
            images_per_second=_speed(group[0], scale, cells),
            assumed=scale.assumed.tflops * 1e12 if scale.assumed else None,
        )
        for group, runs in alike.items()
    ]


def scorings(units: Iterable[Unit], scale: Scale, cells: Cells) -> list[Scoring]:
    """Evaluations of units that lack their cell, by kind."""
    counts = Counter(e.name for unit in units for e in missing(unit, cells) if e.request is not None)
    return [Scoring(name, count, _seconds(name, scale, cells)) for name, count in counts.items()]


def batch_of(options: Mapping[str, Any]) -> int:
    """Images per optimiser step."""
    return options["batch_size"] * options["devices"] * options["num_nodes"] * options["accumulate"]


def num_images(unit: Unit, scale: Scale) -> int | None:
    """Training images of a unit's data, without opening it; None where nobody says."""
    arguments = unit.options["data"].get("init_args") or {}
    return arguments.get("train_size", scale.images.get(unit.method or ""))


def data_sets(units: Iterable[Unit]) -> list[str]:
    """Names of the data sets that units read and that are not rendered."""
    texts = str([[unit.options, *(e.options for e in unit.evaluations.values())] for unit in units])
    return sorted(set(re.findall(r"\$\{(\w+)\}", texts)) - {"run"})


def _flops(unit: Unit) -> float:
    return _counted(json.dumps({name: unit.options[name] for name in COUNTED_OPTIONS}))


@cache
def _counted(options: str) -> float:
    return flops_per_image(json.loads(options))


def _speed(method: str, scale: Scale, cells: Cells) -> float | None:
    """Measured by finished runs of this scale, else what the scale's file says."""
    measured = [
        cell["timings"]["images_per_second"]
        for cell in cells.values()
        if cell["evaluation"] == "training" and cell["scale"] == scale.name and cell["method"] == method
    ]
    if measured:
        return fmean(measured)
    return scale.speeds[method].images_per_second if method in scale.speeds else None


def _seconds(name: str, scale: Scale, cells: Cells) -> float | None:
    measured = [
        cell["timings"]["seconds"]
        for cell in cells.values()
        if cell["evaluation"] == name and cell["scale"] == scale.name
    ]
    return fmean(measured) if measured else scale.seconds.get(name)


def _waiting(cost: Training | Scoring, jobs: int) -> float:
    """Hours until all of it is done; what takes several devices has no other run beside it."""
    return (cost.hours or 0.0) / (cost.devices if cost.devices > 1 else jobs)


_EXPERIMENTS = (
    Column("name", "experiment"),
    Column("rows", "rows", digits=0),
    Column("seeds", "seeds", digits=0),
    Column("runs", "runs", digits=0),
    Column("cells", "cells", digits=0),
    Column("done", "done", digits=0),
)
_COSTS = (
    Column("what", "left to do"),
    Column("count", "times", digits=0),
    Column("each", "each"),
    Column("flop", "operations"),
    Column("speed", "speed"),
    Column("hours", "device hours", digits=2),
)


def _experiments(jobs: Sequence[Job], cells: Cells) -> Table:
    rows: list[Mapping[str, Cell]] = []
    for job in jobs:
        units = {unit.key: unit for unit in job.units.values()}
        rows.append(
            {
                "name": f"{job.experiment.name}: {job.experiment.title}",
                "rows": len(job.experiment.rows),
                "seeds": len({seed for _, seed in job.units}),
                "runs": sum(unit.request is not None for unit in units.values()),
                "cells": len(job.evaluations),
                "done": sum(cells.has(evaluation) for evaluation in job.evaluations.values()),
            }
        )
    return Table(_EXPERIMENTS, rows, note="Runs that several experiments need are trained once.")


def _data(units: Sequence[Unit], machine: Machine) -> str:
    lines = [
        f"Data set {name}: {machine.data_roots.get(name, 'not given; --data_roots says where it lies')}"
        for name in data_sets(units)
    ]
    return "\n".join(lines or ["Data: none to bring; scenes are rendered."])


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"
