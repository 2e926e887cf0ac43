"""Reconstructions from random and from DPP masks, as a record of ``Reconstructions`` holds them (Fig. 8)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from dppmask.data.png import from_png
from dppmask.errors import UserError
from dppmask.figures.reconstruction import Comparison, Reconstruction, draw_comparison
from dppmask.masks import Mask

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


def draw(records: Sequence[Mapping[str, Any]], *, figure: Figure | None = None) -> Figure:
    """The images that one record of ``Reconstructions`` shows.

    Raises:
        UserError: If there are several records, or the record shows no image or has no DPP masks.
    """
    if len(records) > 1:
        raise UserError(
            f"Reconstructions draws one record, got {len(records)}; give a file that holds only one"
        )
    return draw_comparison(comparison_of(records[0]["tables"]), figure=figure)


def comparison_of(tables: Tables) -> Comparison:
    """Random masks beside the first strategy with a purge ratio.

    Raises:
        UserError: If no image is shown, or there is no such strategy.
    """
    shown = tables["shown"]
    if not shown:
        raise UserError("this record of Reconstructions shows no image; evaluate with num_shown above 0")
    described = tables["strategies"]
    dpp = [row for row in described if row["init_args"].get("purge_ratio") is not None]
    if not dpp:
        raise UserError("this record of Reconstructions has no DPP masks to draw; add DPPMask to masks")
    random = next(row for row in described if row["class_path"].endswith(".RandomMask"))
    originals = torch.stack([from_png(image["original"]) for image in shown])
    rows, columns = shown[0]["grid"]
    return Comparison(
        originals,
        (rows, columns),
        _made(shown, random["strategy"], "random masks", rows * columns),
        _made(
            shown,
            dpp[0]["strategy"],
            f"DPP masks, τ = {dpp[0]['init_args']['purge_ratio']:g}",
            rows * columns,
        ),
    )


def _made(shown: Sequence[Row], strategy: str, name: str, num_patches: int) -> Reconstruction:
    """What was made of the masks of one strategy."""
    made = [next(one for one in image["made"] if one["strategy"] == strategy) for image in shown]
    visible = torch.tensor([one["visible"] for one in made])
    images = torch.stack([from_png(one["reconstruction"]) for one in made])
    return Reconstruction(name, Mask.from_ids_keep(visible, num_patches=num_patches), images)
