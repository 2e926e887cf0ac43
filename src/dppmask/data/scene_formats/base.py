"""What a format is, and what all formats share: complete files or none."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from dppmask.data.base import Split
from dppmask.data.scenes import Scenes
from dppmask.files import remove_unfinished, replace_file, write_text

Track = Callable[[range, str], Iterable[int]]  # indices and what is done with them → the same indices


@dataclass(frozen=True)
class SceneFormat:
    """A layout on disk.

    Attributes:
        write: Writes one part, by its name, below a folder. Images that are there already stay as they are;
            what lists them comes last.
        tasks: Of Scenes, that it can hold the labels of.
    """

    write: Callable[[Scenes, Split, Path, Track], None]
    tasks: tuple[str, ...]


def make_folder(path: Path) -> Path:
    """An existing folder without what a killed process was writing there."""
    path.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path)
    return path


def write_png(path: Path, image: Tensor) -> None:
    """Write uint8 ``[3, H, W]``."""
    with replace_file(path) as handle:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(handle, format="PNG")


def write_listing(path: Path, content: dict[str, Any]) -> None:
    """Write JSON on one line, as the originals are."""
    make_folder(path.parent)
    write_text(path, json.dumps(content))
