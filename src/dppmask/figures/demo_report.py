"""The report of the demo: what it measured, drew and ran, in the order in which one asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dppmask.figures.curves import Lines, draw_curves
from dppmask.figures.mask_gallery import Gallery, draw_gallery
from dppmask.figures.mask_statistics import Sweep, draw_statistics
from dppmask.figures.reconstruction import Comparison, draw_comparison
from dppmask.figures.report import Commands, Headline, Picture, Section, Text, write_report
from dppmask.figures.table import Table

TITLE = "Masks that keep every part of the image"

_LEAD = """
Masked image modelling hides patches of an image and learns to predict them. Uniformly random masks can hide
a whole object, which nobody could then guess. DPP masks choose the visible patches to be diverse, so that
less is lost. Both were trained here with the same budget, the same seed and the same noise.
"""
_GALLERY = """
The same images and the same noise for every column. Outlined patches were picked for what they add to the
others; the rest of the visible patches is random. τ = 0 picks all of them, τ = 1 none.
"""
_SWEEPS = """
What masks do to images, against the purge ratio. Bars and bands: ± one standard error over images.
"""
_COMPARISON = """
What each model makes of its own masks, from the same noise. Visible patches keep their pixels; hidden ones
are predicted, with mean and contrast of the true patch where the loss normalises patches.
"""
_CURVES = """
The losses of the runs are not comparable as quality: a mask that shows more leaves an easier task.
"""


@dataclass(frozen=True)
class DemoResults:
    """What the demo found.

    Attributes:
        headline: What was measured → value with its spread, as text; three or four.
        setting: What was trained on what, for how long, and what such a budget can show; a paragraph.
        table: Every evaluation, with baselines.
        gallery: Masks side by side.
        comparison: Reconstructions side by side.
        sweeps: Mask statistics against the purge ratio.
        curves: Name of the run → lines of its ``metrics.jsonl``, the baseline first.
        environment: From ``training.environment.describe_environment``.
        commands: Name of a field above → the commands that give it.
    """

    headline: Mapping[str, str]
    setting: str
    table: Table
    gallery: Gallery
    comparison: Comparison
    sweeps: Mapping[str, Sweep]
    curves: Mapping[str, Lines]
    environment: Mapping[str, Any]
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)


def demo_report(results: DemoResults, path: str | Path) -> Path:
    """Write the report as one HTML file.

    Raises:
        UserError: As :func:`~dppmask.figures.report.write_report`.
    """
    return write_report(
        path,
        title=TITLE,
        lead=[Text(_LEAD), Headline(results.headline), Text(results.setting)],
        sections=_sections(results),
        environment=results.environment,
    )


def _sections(results: DemoResults) -> list[Section]:
    def commands(name: str) -> list[Commands]:
        return [Commands(results.commands[name])] if name in results.commands else []

    gallery = Picture(draw_gallery(results.gallery), _GALLERY)
    sweeps = Picture(draw_statistics(results.sweeps), _SWEEPS)
    comparison = Picture(draw_comparison(results.comparison), _COMPARISON)
    curves = Picture(draw_curves(results.curves), _CURVES)
    return [
        Section("Results", [results.table, *commands("table")]),
        Section("The masks", [gallery, *commands("gallery")]),
        Section("What masks lose", [sweeps, *commands("sweeps")]),
        Section("Reconstructions", [comparison, *commands("comparison")]),
        Section("Training", [curves, *commands("curves")]),
    ]
