"""Background variants as files, in the layout of the Backgrounds Challenge."""

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from dppmask import specs
from dppmask.data.base import ImageSource, Split
from dppmask.data.cut_outs import CutOutVariants, Objects, Watch, unwatched
from dppmask.data.in9 import MASKS, class_folders
from dppmask.data.scene_variants import SceneVariants
from dppmask.data.scenes import Scenes
from dppmask.data.variants import VARIANTS, VariantPart, VariantSource, check_variant
from dppmask.errors import UserError
from dppmask.files import remove_unfinished, replace_file, write_json

RECORD = "backgrounds.json"


def variant_source(
    data: ImageSource,
    *,
    size: int | None = 224,
    objects: Objects = "largest",
    min_area: float = 0.01,
    max_box: float = 0.9,
    seed: int = 0,
) -> VariantSource:
    """The background variants of a source: its own, rendered for Scenes, else cut out along its masks.

    Args:
        data: The source.
        size: See :class:`~dppmask.data.cut_outs.CutOutVariants`; it and the others are for cut-outs alone.
        objects: See there.
        min_area: See there.
        max_box: See there.
        seed: See there.

    Raises:
        UserError: If an option is out of range, or scenes are of a task with several objects.
    """
    if isinstance(data, VariantSource):
        return data
    if isinstance(data, Scenes):
        return SceneVariants(data)
    return CutOutVariants(data, size=size, objects=objects, min_area=min_area, max_box=max_box, seed=seed)


def write_backgrounds(
    source: VariantSource,
    out: str | Path,
    *,
    split: Split = "val",
    variants: Sequence[str] = tuple(VARIANTS),
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Write variants as ``out/VARIANT/SPLIT/CLASS/*.JPEG`` and masks as ``out/fg_mask/SPLIT/CLASS/*.npy``.

    Every file is either whole or not there. Called again with the same source, it writes what is missing;
    :class:`~dppmask.data.in9.IN9` reads the result.

    Args:
        source: The variants.
        out: The folder.
        split: Which part.
        variants: Which of :data:`~dppmask.data.variants.VARIANTS`.
        watch: Reports progress.

    Returns:
        The record, also written to ``out/backgrounds.json`` under the name of the part: the source, the
        variants there are now, how many images each of them and each class has, how many were left out and
        why.

    Raises:
        UserError: If a variant does not exist, nothing can be made, or the folder holds variants of another
            source.
    """
    for name in variants:
        check_variant(name)
    out = Path(out)
    original = source.variant("original")
    described = specs.describe(original)
    records = _records(out, split, described)
    left_out: dict[str, int] = {}
    if isinstance(source, CutOutVariants):
        left_out = source.plan(split, watch)[1].left_out
    part = original.split(split)
    folders = class_folders(part.class_names or [])
    write_json(out / RECORD, records)
    for name in variants:
        _write_images(source.variant(name).split(split), out / name / split, folders, name, watch)
    _write_masks(part, out / MASKS / split, folders, watch)
    records[split] = {
        "data": described,
        "variants": [name for name in VARIANTS if (out / name / split).is_dir()],
        "images": len(part),
        "classes": dict(sorted(Counter(folders[part.label(i)] for i in range(len(part))).items())),
        "left_out": left_out,
    }
    write_json(out / RECORD, records)
    return records[split]


def _write_images(
    part: VariantPart, folder: Path, class_folders: list[str], title: str, watch: Watch
) -> None:
    for index, path in _missing(part, folder, class_folders, ".JPEG", title, watch):
        with replace_file(path) as handle:
            handle.write(jpeg(part[index].image))


def _write_masks(part: VariantPart, folder: Path, class_folders: list[str], watch: Watch) -> None:
    for index, path in _missing(part, folder, class_folders, ".npy", MASKS, watch):
        with replace_file(path) as handle:
            np.save(handle, part.mask(index).numpy())


def _missing(
    part: VariantPart, folder: Path, class_folders: list[str], suffix: str, title: str, watch: Watch
) -> Iterator[tuple[int, Path]]:
    """The images that have no file yet, and its path; what a killed process was writing is removed."""
    for below in folder.glob("*"):
        remove_unfinished(below)
    for index in watch(range(len(part)), title, len(part)):
        path = folder / class_folders[part.label(index)] / f"{part.stem(index)}{suffix}"
        if not path.exists():
            yield index, path


def jpeg(image: Tensor) -> bytes:
    """An image uint8 ``[3, H, W]`` as a file; colours at full resolution, so borders stay sharp."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _records(out: Path, split: Split, described: Any) -> dict[str, Any]:
    """The records of a folder, by part; this part's source is among them before the first image is there.

    Raises:
        UserError: If the folder holds this part of another source.
    """
    path = out / RECORD
    try:
        records = json.loads(path.read_text())
    except FileNotFoundError:
        records = {}
    except ValueError as error:
        raise UserError(f"cannot read {path} ({error}); choose another folder for out") from None
    known = records.setdefault(split, {"data": described})["data"]
    if known != described:
        raise UserError(f"out {out} holds the {split} part of other data or options; choose another folder")
    return records
