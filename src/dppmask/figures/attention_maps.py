"""What the class token looks at: the last block's attention to the patches, head by head and on average."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from dppmask.data.base import ImageSource, Split
from dppmask.errors import UserError
from dppmask.evaluation.base import Compute
from dppmask.evaluation.features import frozen
from dppmask.figures.mask_gallery import spread_images
from dppmask.figures.patches import Grid, show_heat, show_image, to_uint8
from dppmask.figures.style import QUIET, check_picture_path, new_figure, save_figure, styled
from dppmask.models.checkpoint import load_encoder
from dppmask.models.encoder import Encoder

COLOURS = "inferno"
_CELL = 1.15  # inches per image


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """What is drawn.

    Attributes:
        images: uint8 ``[B, C, H, W]``.
        grid: (rows, columns) of patches.
        attention: float ``[B, heads, N]``; a row sums to 1 less what the prefix tokens get.
        note: One line below the picture.
    """

    images: Tensor
    grid: Grid
    attention: Tensor
    note: str = ""

    @property
    def panels(self) -> dict[str, Tensor]:
        """Title → attention ``[B, N]`` as a multiple of 1 / N: first the mean over heads, then each head."""
        relative = self.attention * self.attention.shape[2]
        heads = {f"head {number}": head for number, head in enumerate(relative.unbind(1), start=1)}
        return {"mean": relative.mean(1), **heads}


def attention_maps(images: Tensor, encoder: Encoder, *, note: str = "") -> AttentionMaps:
    """The class token's attention in an encoder's last block.

    Args:
        images: Normalised, ``[B, C, H, W]``.
        encoder: Its mode is left as it was.
        note: One line below the picture.

    Raises:
        ValueError: If the encoder has no class token, or no attention that can be read.
    """
    with frozen(encoder, Compute()):
        attention = encoder.encode(images, attention=True).attention
    assert attention is not None  # asked for
    originals = to_uint8(images, mean=encoder.mean, std=encoder.std)
    return AttentionMaps(originals, encoder.grid, attention.cpu(), note)


@styled()
def draw_attention_maps(maps: AttentionMaps, *, figure: Figure | None = None) -> Figure:
    """One row per image: the image, the mean over heads, every head.

    Each map goes from its smallest to its largest value, which are written below it.
    """
    panels, (height, width) = maps.panels, maps.images.shape[-2:]
    num_rows, num_columns = len(maps.images), 1 + len(panels)
    if figure is None:
        size = _CELL * num_columns, (_CELL * height / width + 0.15) * num_rows + 0.5
        figure = new_figure(*size, layout="compressed")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    for row, image in enumerate(maps.images):
        show_image(axes[row, 0], image)
    axes[0, 0].set_title("original", loc="center")
    for column, (title, values) in enumerate(panels.items(), start=1):
        axes[0, column].set_title(title, loc="center")
        for row, value in enumerate(values):
            show_heat(axes[row, column], value, grid=maps.grid, image_size=(height, width), colours=COLOURS)
    caption = "attention of the class token, and its range: 1 is an equal share for every patch"
    figure.supxlabel(f"{caption}\n{maps.note}".rstrip(), color=QUIET, fontsize=8)
    return figure


def draw_attention(
    *,
    run: str,
    data: ImageSource,
    out: str = "attention.png",
    num_images: int = 4,
    split: Split = "val",
    image_size: int | tuple[int, int] | None = None,
) -> Path:
    """Draw what the class token attends to in the last block of an encoder.

    Args:
        run: A run (of a self-distilled one, its teacher), or the folder, file or timm name of an encoder.
        data: The images; those drawn are spread evenly over it.
        out: The picture to write: .png, .pdf or .svg.
        num_images: How many images.
        split: Which part of the data: "train" or "val".
        image_size: Size to encode, if not the one trained on.
    """
    path = check_picture_path(out)
    encoder = load_encoder(run, image_size=image_size)
    images = spread_images(data.split(split), num_images, encoder)
    try:
        maps = attention_maps(images, encoder, note=f"encoder of {run}")
    except ValueError as error:
        raise UserError(str(error)) from None
    return save_figure(draw_attention_maps(maps), path)
