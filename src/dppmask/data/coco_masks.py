"""COCO's outlines as pixels: polygons, and run lengths in both of their spellings.

Run lengths are unpacked here rather than by pycocotools, whose decoder leaves pixels that damaged runs do not
reach as it finds them in memory.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

BITS = 5  # of a number in each character of packed runs
FIRST_CHARACTER = ord("0")


def fill(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels ``[H, W]`` that a segmentation covers: polygons, or run lengths, packed or not.

    A polygon of fewer than three points covers none.

    Raises:
        TypeError, ValueError, OverflowError, KeyError: If it is neither, or for an image of another size.
    """
    if isinstance(segmentation, list):
        return fill_polygons(segmentation, height, width)
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"its size is {segmentation['size']}, the image's [{height}, {width}]")
    counts = segmentation["counts"]
    return fill_runs(unpack_runs(counts) if isinstance(counts, str) else counts, height, width)


def fill_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels ``[H, W]`` within any of the polygons ``[x, y, x, y, …]``, as pycocotools rounds them."""
    if any(len(points) % 2 for points in polygons):
        raise ValueError("a polygon has an odd number of coordinates")
    areas = [points for points in polygons if len(points) >= 6]
    if not areas:
        return np.zeros((height, width), dtype=np.bool_)
    packed = coco_mask.merge(coco_mask.frPyObjects(areas, height, width))
    return fill_runs(unpack_runs(packed["counts"].decode()), height, width)


def fill_runs(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels ``[H, W]`` of every second run; runs go down the columns, from left to right.

    Raises:
        ValueError: If they are not those of an image of this size.
    """
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"its runs do not add up to the {height} x {width} pixels of the image")
    covered = np.arange(len(runs)) % 2 == 1
    return np.repeat(covered, runs).reshape(width, height).T


def unpack_runs(packed: str) -> list[int]:
    """Run lengths from the string that pycocotools packs them into.

    A number takes as many characters as it needs, five bits each, the lowest first: a sixth bit says that
    more follow, and the highest bit of the last is the sign. From the fourth on, numbers are differences to
    the one before the last.

    Raises:
        ValueError: If it is no such string.
    """
    runs: list[int] = []
    value = shift = 0
    for character in packed:
        group = ord(character) - FIRST_CHARACTER
        if not 0 <= group < 2 ** (BITS + 1):
            raise ValueError(f"{character!r} is no character of packed run lengths")
        value |= (group % 2**BITS) << shift
        shift += BITS
        if group >= 2**BITS:
            continue
        if value >> (shift - 1):
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its packed run lengths end in the middle of a number")
    return runs
