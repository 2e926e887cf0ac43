"""Scenes as files, in the official layouts of the data sets that they stand in for."""

import json
from pathlib import Path
from typing import Any, get_args

from dppmask import specs
from dppmask.data.base import Split
from dppmask.data.scene_formats import FORMATS
from dppmask.data.scene_formats.base import Track, make_folder
from dppmask.data.scenes import RENDERER_VERSION, Scenes
from dppmask.errors import UserError, nearest
from dppmask.files import write_json

WRITTEN_FROM = "written_from.json"


def export_scenes(
    scenes: Scenes, folder: Path, format: str, *, track: Track = lambda indices, title: indices
) -> None:
    """Write both parts as PNG, so that nothing is lost; what a stopped export has left is kept and completed.

    Args:
        scenes: What to write.
        folder: Where to: new, empty, or what an export of the same scenes in the same format has left.
        format: "imagefolder" (task "single"), "clevr" (task "multi") or "coco" (either).
        track: Sees the indices of each part pass by.

    Raises:
        UserError: If the format is unknown or does not suit the task, if the folder holds something else, or
            if the disk is full.
    """
    if format not in FORMATS:
        raise UserError(f"format {format!r} does not exist; {nearest(format, FORMATS)}")
    if scenes.task not in FORMATS[format].tasks:
        raise UserError(f"format {format} needs scenes of task {FORMATS[format].tasks[0]}, got {scenes.task}")
    claim(folder, format, scenes)
    for name in get_args(Split):
        FORMATS[format].write(scenes.split(name), name, folder, track)


def claim(folder: Path, format: str, scenes: Scenes) -> None:
    """Note what a folder is written from, before anything else is written there.

    Raises:
        UserError: If there is a note of something else, or a folder with content but without a note.
    """
    description = _describe(format, scenes)
    note = folder / WRITTEN_FROM
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out must be a folder, but {folder} is a file")
    make_folder(folder)
    if not note.exists():
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty and holds no scenes; choose another folder")
        write_json(note, description)
    elif (found := _read(note)) != description:
        differing = sorted(name for name in description if found.get(name) != description[name])
        raise UserError(
            f"{folder} was written with another {', '.join(differing)}; choose another folder, or see {note}"
        )


def _describe(format: str, scenes: Scenes) -> dict[str, Any]:
    """Everything that the files depend on."""
    options = specs.describe(scenes)["init_args"]
    del options["cache_dir"]
    return {"format": format, "renderer": RENDERER_VERSION, **options}


def _read(note: Path) -> dict[str, Any]:
    try:
        return json.loads(note.read_text())
    except ValueError:
        raise UserError(f"{note} is damaged; delete the folder and start again") from None
