"""Scenes with several objects as CLEVR's images and scenes JSON."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from dppmask.data.base import Split
from dppmask.data.clevr import scenes_name
from dppmask.data.scene_formats.base import Track, make_folder, write_listing, write_png
from dppmask.data.scene_layout import BODY_HEIGHT, Scene, SceneObject
from dppmask.data.scenes import RENDERER_VERSION, Scenes

MARGIN = 0.08  # in half short sides: how much farther left an object must be to count as left of another
DIRECTIONS = {  # on the floor: x to the right, y away from the viewer, z upwards
    "right": (1.0, 0.0, 0.0),
    "left": (-1.0, 0.0, 0.0),
    "behind": (0.0, 1.0, 0.0),
    "front": (0.0, -1.0, 0.0),
    "above": (0.0, 0.0, 1.0),
    "below": (0.0, 0.0, -1.0),
}


def write_clevr(part: Scenes, name: Split, folder: Path, track: Track) -> None:
    """``images/train/CLEVR_train_000000.png`` and ``scenes/CLEVR_train_scenes.json``."""
    images = make_folder(folder / "images" / name)
    records = []
    for index in track(range(len(part)), f"images of {name}"):
        path = images / f"CLEVR_{name}_{index:06d}.png"
        if not path.exists():
            write_png(path, part[index].image)
        record = {"image_index": index, "image_filename": path.name, "split": name}
        records.append(record | describe_scene(part.scene(index), part.height, part.width))
    info = {"split": name, "version": str(RENDERER_VERSION), "description": "Scenes of dppmask"}
    write_listing(folder / scenes_name(name), {"info": info, "scenes": records})


def describe_scene(scene: Scene, height: int, width: int) -> dict[str, Any]:
    """The objects of a scene and how they stand to each other, as CLEVR writes it.

    Coordinates on the floor are in half short sides of the image, from its centre, and leave out perspective.

    Args:
        scene: What stands where.
        height: Of the image.
        width: Of the image.
    """
    places = np.array([_floor_place(item, scene.tilt) for item in scene.objects])  # [K, 3]
    relationships = {}
    for relation in ("right", "behind", "front", "left"):
        along = places @ np.array(DIRECTIONS[relation])
        relationships[relation] = [np.flatnonzero(along > reference + MARGIN).tolist() for reference in along]
    return {
        "objects": [_describe_object(item, scene.tilt, height, width) for item in scene.objects],
        "relationships": relationships,
        "directions": DIRECTIONS,
    }


def _floor_place(item: SceneObject, tilt: float) -> tuple[float, float, float]:
    """Where the middle of a body is: to the right, away from the viewer, above the floor."""
    return item.x, item.y / math.sin(tilt), BODY_HEIGHT[item.shape] * item.radius


def _describe_object(item: SceneObject, tilt: float, height: int, width: int) -> dict[str, Any]:
    right, away, up = _floor_place(item, tilt)
    half = min(height, width) / 2
    depth = away * math.cos(tilt) - up * math.sin(tilt)
    pixel = (width / 2 + half * item.x, height / 2 - half * item.centre_y(tilt), depth)
    return {
        "shape": item.shape,
        "color": item.colour,
        "size": item.size,
        "material": item.material,
        "3d_coords": [right, away, up],
        "rotation": math.degrees(item.yaw),
        "pixel_coords": list(pixel),
    }
