"""``dppmask backgrounds``: the variants of the Backgrounds Challenge, of any images with object masks."""

import json
from collections.abc import Iterable
from typing import Any

from dppmask.commands.parser import call_with_options
from dppmask.data.background_builder import variant_source, write_backgrounds
from dppmask.data.base import ImageSource, Split
from dppmask.data.cut_outs import Objects
from dppmask.data.variants import VARIANTS
from dppmask.evaluation.progress import reported


def main(arguments: list[str]) -> str:
    """Build; what was made goes to stdout as one JSON line."""
    return json.dumps(call_with_options("dppmask backgrounds", backgrounds, arguments))


def backgrounds(
    *,
    data: ImageSource,
    out: str,
    split: Split = "val",
    variants: list[str] = list(VARIANTS),  # noqa: B006 - never changed; a list for the parser
    size: int | None = 224,
    objects: Objects = "largest",
    min_area: float = 0.01,
    max_box: float = 0.9,
    seed: int = 0,
) -> dict[str, Any]:
    """Write images with other backgrounds, or none, in the folders of the Backgrounds Challenge.

    The result is data for --protocol Backgrounds --data IN9 --data.root OUT. Stopped or killed, the same
    command goes on. Scenes are rendered, at their own size; of other images the foregrounds are cut out.

    Args:
        data: Images with object masks: Scenes with the task single, SegmentedFolder, ….
        out: The folder to write.
        split: Which part of the data: "train" or "val".
        variants: Which variants; --variants+ adds one.
        size: Side of the images: the shorter side is resized to it and the middle cropped; null keeps them.
        objects: The foreground of an image: its largest object, or the union of all objects of its class.
        min_area: Smallest share of the pixels that a foreground may have.
        max_box: Largest share of the pixels that the box around it may have.
        seed: Of the choice of backgrounds.
    """
    source = variant_source(data, size=size, objects=objects, min_area=min_area, max_box=max_box, seed=seed)
    return write_backgrounds(source, out, split=split, variants=variants, watch=_report)


def _report(indices: Iterable[int], title: str, total: int) -> Iterable[int]:
    return reported(indices, title, total=total)
