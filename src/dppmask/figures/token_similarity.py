"""Which patches an encoder takes for alike: the cosine similarity of chosen patches' tokens to all others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from dppmask.data.base import ImageSource, Split
from dppmask.errors import UserError
from dppmask.evaluation.base import Compute
from dppmask.evaluation.features import frozen
from dppmask.figures.mask_gallery import spread_images
from dppmask.figures.patches import Grid, outline, show_heat, show_image, to_uint8
from dppmask.figures.style import QUIET, SERIES, check_picture_path, new_figure, save_figure, styled
from dppmask.models.checkpoint import load_encoder
from dppmask.models.encoder import Encoder

COLOURS = "viridis"
_CELL = 1.3  # inches per image

Place = tuple[int, int]  # row and column of a patch


@dataclass(frozen=True, eq=False)
class TokenSimilarity:
    """What is drawn.

    Attributes:
        images: uint8 ``[B, C, H, W]``.
        grid: (rows, columns) of patches.
        places: Row and column of the Q patches that are compared with all others.
        similarity: float ``[B, Q, N]``, in [-1, 1].
        note: One line below the picture.
    """

    images: Tensor
    grid: Grid
    places: tuple[Place, ...]
    similarity: Tensor
    note: str = ""

    def chosen(self, query: int) -> Tensor:
        """Bool ``[N]``: where one of the patches is."""
        row, column = self.places[query]
        return torch.arange(self.similarity.shape[2]) == row * self.grid[1] + column


def token_similarity(
    images: Tensor, encoder: Encoder, places: Sequence[Place] | None = None, *, note: str = ""
) -> TokenSimilarity:
    """Cosine similarity of an encoder's output tokens, behind the final norm.

    Args:
        images: Normalised, ``[B, C, H, W]``.
        encoder: Its mode is left as it was.
        places: Row and column of each patch to compare, from 0; None = one in the middle and one halfway from
            there to the upper left and to the lower right corner.
        note: One line below the picture.

    Raises:
        ValueError: If there are none, or one is outside the grid.
    """
    rows, columns = encoder.grid
    if places is None:
        places = [(rows * share // 4, columns * share // 4) for share in (2, 1, 3)]
    if not places:
        raise ValueError("places must name at least one patch as (row, column)")
    for row, column in places:
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(
                f"places must lie in the grid of {rows} × {columns} patches, got row {row}, column {column}"
            )
    with frozen(encoder, Compute()):
        tokens = F.normalize(encoder.encode(images).patches.float(), dim=-1)  # [B, N, D]
    index = [row * columns + column for row, column in places]
    similarity = tokens[:, index] @ tokens.mT
    originals = to_uint8(images, mean=encoder.mean, std=encoder.std)
    return TokenSimilarity(originals, encoder.grid, tuple(places), similarity.cpu(), note)


@styled()
def draw_similarity_maps(maps: TokenSimilarity, *, figure: Figure | None = None) -> Figure:
    """One row per image: the image with the chosen patches outlined, and a map for each of them.

    Each map goes from its smallest to its largest similarity to *other* patches, which are written below it.
    """
    height, width = maps.images.shape[-2:]
    num_rows, num_columns = len(maps.images), 1 + len(maps.places)
    if figure is None:
        size = max(_CELL * num_columns, 3 * _CELL), (_CELL * height / width + 0.15) * num_rows + 0.5
        figure = new_figure(*size, layout="compressed")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    shape: dict[str, Any] = {"grid": maps.grid, "image_size": (height, width)}
    axes[0, 0].set_title("original", loc="center")
    for row, image in enumerate(maps.images):
        show_image(axes[row, 0], image)
    for query, place in enumerate(maps.places):
        colour, chosen = SERIES[query % len(SERIES)], maps.chosen(query)
        name = "patch {}, {}".format(*place)
        axes[0, 1 + query].set_title(name, loc="center", color=colour)
        for row, values in enumerate(maps.similarity[:, query]):
            others = values.masked_fill(chosen, torch.nan)
            show_heat(axes[row, 1 + query], others, **shape, colours=COLOURS)
            for panel in (axes[row, 0], axes[row, 1 + query]):
                outline(panel, chosen, **shape, colour=colour, name=name)
    caption = "cosine similarity of the outlined patch to the others, and its range"
    figure.supxlabel(f"{caption}\n{maps.note}".rstrip(), color=QUIET, fontsize=8)
    return figure


def draw_similarity(
    *,
    run: str,
    data: ImageSource,
    out: str = "similarity.png",
    places: list[tuple[int, int]] | None = None,
    num_images: int = 4,
    split: Split = "val",
    image_size: int | tuple[int, int] | None = None,
) -> Path:
    """Draw how alike an encoder's tokens are: chosen patches against all others of their image.

    Args:
        run: A run (of a self-distilled one, its teacher), or the folder, file or timm name of an encoder.
        data: The images; those drawn are spread evenly over it.
        out: The picture to write: .png, .pdf or .svg.
        places: The patches, each as [row, column] from 0: [[7,7],[2,11]]. The middle and two more by default.
        num_images: How many images.
        split: Which part of the data: "train" or "val".
        image_size: Size to encode, if not the one trained on.
    """
    path = check_picture_path(out)
    encoder = load_encoder(run, image_size=image_size)
    images = spread_images(data.split(split), num_images, encoder)
    try:
        maps = token_similarity(images, encoder, places, note=f"encoder of {run}")
    except ValueError as error:
        raise UserError(str(error)) from None
    return save_figure(draw_similarity_maps(maps), path)
