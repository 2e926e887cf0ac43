"""A report as one HTML file that needs nothing else: no network, no script, pictures inside."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

from dppmask import __version__
from dppmask.errors import UserError
from dppmask.figures.style import figure_bytes
from dppmask.files import write_text


class Block(Protocol):
    """Anything that can stand in a section."""

    def to_html(self) -> str:
        """Well-formed HTML, with everything from outside escaped."""
        ...


@dataclass(frozen=True)
class Text:
    """Paragraphs, a blank line between two; `` `code` `` in backticks.

    Attributes:
        text: Plain text.
    """

    text: str

    def to_html(self) -> str:
        return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in self.text.strip().split("\n\n"))


@dataclass(frozen=True)
class Headline:
    """The numbers one should leave with.

    Attributes:
        numbers: What was measured → its value, as text.
    """

    numbers: Mapping[str, str]

    def to_html(self) -> str:
        tiles = (f"<div><dt>{_inline(k)}</dt><dd>{_inline(v)}</dd></div>" for k, v in self.numbers.items())
        return f'<dl class="headline">{"".join(tiles)}</dl>'


@dataclass(frozen=True)
class Picture:
    """A figure with what is to be seen in it.

    Attributes:
        figure: The figure, or the bytes of a png file.
        caption: Below the picture.
        description: For those who do not see it; the caption if empty.
    """

    figure: Figure | bytes
    caption: str
    description: str = ""

    def to_html(self) -> str:
        content = self.figure if isinstance(self.figure, bytes) else figure_bytes(self.figure)
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        caption = self.caption.strip()
        image = f'<img src="{source}" alt="{escape(self.description or caption)}"/>'
        return f"<figure>{image}<figcaption>{_inline(caption)}</figcaption></figure>"


@dataclass(frozen=True)
class Commands:
    """Shell commands that give what the section shows.

    Attributes:
        lines: One command each.
    """

    lines: Sequence[str]

    def to_html(self) -> str:
        whole_options = (re.sub(r"(--\S+)", r"<span>\1</span>", escape(line)) for line in self.lines)
        code = "".join(f"<code>{line}</code>" for line in whole_options)
        return f'<details open="open"><summary>Commands</summary><pre>{code}</pre></details>'


@dataclass(frozen=True)
class Facts:
    """Names and values.

    Attributes:
        items: Name → value.
    """

    items: Mapping[str, str]

    def to_html(self) -> str:
        rows = (f"<dt>{escape(name)}</dt><dd>{_inline(value)}</dd>" for name, value in self.items.items())
        return f'<dl class="facts">{"".join(rows)}</dl>'


@dataclass(frozen=True)
class Points:
    """A list under a heading of its own.

    Attributes:
        heading: What the points are.
        points: One or two sentences each.
    """

    heading: str
    points: Sequence[str]

    def to_html(self) -> str:
        items = "".join(f"<li>{_inline(point)}</li>" for point in self.points)
        return f"<h3>{escape(self.heading)}</h3><ul>{items}</ul>"


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        heading: Short.
        blocks: In reading order.
    """

    heading: str
    blocks: Sequence[Block] = field(default_factory=list)


def write_report(
    path: str | Path,
    *,
    title: str,
    sections: Sequence[Section],
    lead: Sequence[Block] = (),
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report; the old file stays whole until the new one is.

    Args:
        path: Ends with ``.html``; its folder exists.
        title: Heading of the page.
        sections: In reading order.
        lead: What stands before the first section: the result in short.
        environment: From ``training.environment.describe_environment``, for the foot of the page.

    Raises:
        UserError: If the suffix is another, the folder does not exist, or the disk is full.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise UserError(f"a report must end with .html, got {path}")
    if not path.parent.is_dir():
        raise UserError(f"report {path}: there is no folder {path.parent}; make it, or choose another place")
    write_text(path, render_report(title=title, sections=sections, lead=lead, environment=environment))
    return path


def render_report(
    *,
    title: str,
    sections: Sequence[Section],
    lead: Sequence[Block] = (),
    environment: Mapping[str, Any] | None = None,
) -> str:
    """The page as text; arguments as for :func:`write_report`."""
    style = files("dppmask.figures").joinpath("report.css").read_text(encoding="utf-8")
    contents = "".join(f'<li><a href="#{_anchor(s.heading)}">{escape(s.heading)}</a></li>' for s in sections)
    body = "\n".join(
        f'<section id="{_anchor(section.heading)}"><h2>{escape(section.heading)}</h2>'
        f"{_join(section.blocks)}</section>"
        for section in sections
    )
    made_with = Facts(environment_facts(environment)).to_html() if environment else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>{_join(lead)}<nav aria-label="Contents"><ol>{contents}</ol></nav></header>
<main>
{body}
</main>
<footer><h2>How this was made</h2>{made_with}<p>dppmask {escape(__version__)}</p></footer>
</body>
</html>
"""


def environment_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """The part of an ``environment.json`` that a reader wants: what ran, on what, when."""
    hardware, versions = environment.get("hardware", {}), environment.get("versions", {})
    gpus = ", ".join(hardware.get("gpus") or ["no GPU"])
    facts = {
        "date": environment.get("date"),
        "took": timedelta(seconds=environment["seconds"]) if "seconds" in environment else None,
        "command": f"`{environment['command']}`" if environment.get("command") else None,
        "commit": environment.get("commit") or "not in a checkout",
        "hardware": f"{hardware.get('cpu', 'unknown')}, {hardware.get('cpu_cores', '?')} cores; {gpus}",
        "versions": ", ".join(f"{name} {v}" for name, v in versions.items() if v and name != "dppmask"),
        "python": environment.get("python"),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _join(blocks: Sequence[Block]) -> str:
    return "\n".join(block.to_html() for block in blocks)


def _inline(text: str) -> str:
    """Escaped, with backticks turned into code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
