"""Scenes with one object as a folder of class folders."""

from pathlib import Path

from dppmask.data.base import Split
from dppmask.data.scene_formats.base import Track, make_folder, write_png
from dppmask.data.scenes import SINGLE_CLASSES, Scenes


def write_image_folder(part: Scenes, name: Split, folder: Path, track: Track) -> None:
    """``train/0_warm cube/000000.png``: the number makes the order of the folders that of the labels."""
    folders = [
        make_folder(folder / name / f"{label}_{group} {shape}")
        for label, (shape, group) in enumerate(SINGLE_CLASSES)
    ]
    for index in track(range(len(part)), f"images of {name}"):
        (label,) = part.present(index)
        path = folders[label] / f"{index:06d}.png"
        if not path.exists():
            write_png(path, part[index].image)
