"""Scenes as COCO's images and instances JSON."""

from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from torch import Tensor

from dppmask.data.base import Split
from dppmask.data.coco import annotations_name
from dppmask.data.scene_formats.base import Track, make_folder, write_listing, write_png
from dppmask.data.scenes import RENDERER_VERSION, Scenes

YEAR = 2014  # whose layout


def write_coco(part: Scenes, name: Split, folder: Path, track: Track) -> None:
    """``train2014/COCO_train2014_000000000000.png`` and ``annotations/instances_train2014.json``."""
    assert part.class_names is not None
    images = make_folder(folder / f"{name}{YEAR}")
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in track(range(len(part)), f"images of {name}"):
        path, sample = images / f"COCO_{name}{YEAR}_{index:012d}.png", part[index]
        if not path.exists():
            write_png(path, sample.image)
        listed.append({"id": index, "file_name": path.name, "height": part.height, "width": part.width})
        assert sample.objects is not None
        for item, mask in zip(part.scene(index).objects, sample.objects, strict=True):
            numbers = {"id": len(annotations) + 1, "image_id": index, "category_id": part.class_of(item) + 1}
            annotations.append(numbers | describe_region(mask))
    content = {
        "info": {"year": YEAR, "version": str(RENDERER_VERSION), "description": "Scenes of dppmask"},
        "images": listed,
        "licenses": [],
        "annotations": annotations,
        "categories": [{"id": number + 1, "name": kind} for number, kind in enumerate(part.class_names)],
    }
    write_listing(folder / annotations_name(name, YEAR), content)


def describe_region(mask: Tensor) -> dict[str, Any]:
    """The pixels bool ``[H, W]`` of one object, as compressed run lengths, with their box and number."""
    runs = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {
        "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
        "area": int(coco_mask.area(runs)),
        "bbox": coco_mask.toBbox(runs).tolist(),
        "iscrowd": 0,
    }
