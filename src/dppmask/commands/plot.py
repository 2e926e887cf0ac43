"""``dppmask plot``: results of evaluations as a picture."""

from pathlib import Path

from dppmask.commands.parser import call_with_options
from dppmask.figures.records import choose_protocol, draw_records, read_records
from dppmask.figures.style import check_picture_path, save_figure


def main(arguments: list[str]) -> str:
    """Draw; the picture's path goes to stdout."""
    return str(call_with_options("dppmask plot", plot, arguments))


def plot(*, results: list[str], out: str, protocol: str | None = None) -> Path:
    """Draw the results of one protocol, of one or several runs.

    The protocol decides the figure: MultiLabel is drawn by dppmask.figures.multi_label.draw(records), and so
    on, by the name in snake case; metrics of a protocol without one stand beside their baselines.

    Args:
        results: Files that dppmask evaluate writes, or run folders; may be repeated.
        out: The picture to write: *.png, *.pdf or *.svg.
        protocol: Whose results, where there are those of several.
    """
    path = check_picture_path(out)
    name, records = choose_protocol(read_records(results), protocol)
    return save_figure(draw_records(name, records), path)
