"""How figures look: colours, fonts, sizes, and how they become files."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib.style
from matplotlib.figure import Figure

from dppmask.errors import UserError
from dppmask.files import replace_file

FORMATS = ("png", "pdf", "svg")
WIDE = 7.0  # inches: the width of a page of text; half of it is a column
DPI = 200

INK = "#1b1f24"
QUIET = "#57606a"
GRID = "#e4e7eb"
PAPER = "#d2d6db"  # what covers hidden patches

# Random against DPP in every figure; red and blue are told apart with every kind of colour vision.
RANDOM = "#d1421f"
DPP = "#1769d6"
BOTH = "#ffffff"
SERIES = (RANDOM, DPP, "#00845a", "#b4519a", "#a86a00", "#40484f")

SWATCHES: dict[str, Any] = {"handlelength": 1.0, "handleheight": 1.0, "title_fontsize": 8}  # square legends

_RULES: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8c959f",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "dppmask",  # equal figures give equal files
    "pdf.fonttype": 42,
}
_NO_DATE: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}


@contextmanager
def styled() -> Iterator[None]:
    """The style of all figures, whatever the user's matplotlibrc says; a decorator too."""
    with matplotlib.style.context(["default", _RULES]):
        yield


def new_figure(
    width: float, height: float, *, layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """An empty figure, sizes in inches. Call it inside :func:`styled`."""
    return Figure(figsize=(width, height), layout=layout, dpi=DPI)


def check_picture_path(out: str | Path) -> Path:
    """A path that :func:`save_figure` can write, so that a wrong one is found before the work is done.

    Raises:
        UserError: If the suffix is none of png, pdf, svg, or the folder does not exist.
    """
    path = Path(out)
    if path.suffix.lower().removeprefix(".") not in FORMATS:
        raise UserError(f"out must end with .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}, got {out}")
    if not path.parent.is_dir():
        raise UserError(f"out {out}: there is no folder {path.parent}; make it, or choose another place")
    return path


def save_figure(figure: Figure, out: str | Path) -> Path:
    """Write a figure as png, pdf or svg, by suffix; equal figures give equal files.

    Raises:
        UserError: As :func:`check_picture_path`, or if the disk is full.
    """
    path = check_picture_path(out)
    content = figure_bytes(figure, path.suffix.lower().removeprefix("."))
    with replace_file(path) as handle:
        handle.write(content)
    return path


@styled()
def figure_bytes(figure: Figure, format: str = "png") -> bytes:
    """The content of the file."""
    buffer = io.BytesIO()
    metadata: Mapping[str, Any] = _NO_DATE[format]
    figure.savefig(buffer, format=format, dpi=DPI, metadata=dict(metadata))
    return buffer.getvalue()
