"""``dppmask scenes``: the built-in data as files in an official layout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dppmask.commands.parser import call_with_options
from dppmask.data.base import ImageSource
from dppmask.data.scenes import Scenes
from dppmask.data.scenes_export import export_scenes
from dppmask.errors import UserError
from dppmask.evaluation.progress import reported

BUILT_IN = Scenes()


def main(arguments: list[str]) -> str:
    """Write; the folder goes to stdout."""
    return str(call_with_options("dppmask scenes", write_scenes, arguments))


def write_scenes(
    *, format: Literal["imagefolder", "clevr", "coco"], out: str, data: ImageSource = BUILT_IN
) -> Path:
    """Write the built-in scenes, both parts, in the layout of another data set; goes on where it was stopped.

    Args:
        format: "imagefolder" for ImageFolder (one object, --data.task single), "clevr" for CLEVR, "coco" for
            COCO.
        out: The folder to write.
        data: Which scenes.
    """
    if not isinstance(data, Scenes):
        raise UserError(f"--data must be Scenes, which can be written, got {type(data).__name__}")
    export_scenes(data, Path(out), format, track=_report)
    return Path(out)


def _report(indices: range, title: str) -> Iterator[int]:
    return reported(indices, title, total=len(indices))
