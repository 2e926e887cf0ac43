"""Which patches masks show together with a chosen one, against random masks; exactly where that is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from dppmask.data.base import ImageSource, Split
from dppmask.errors import UserError
from dppmask.evaluation.base import Subject
from dppmask.evaluation.co_visibility import CoVisibility, co_visibility, rarely_exceeded
from dppmask.evaluation.features import eval_transform_of
from dppmask.evaluation.mask_batches import make_context
from dppmask.evaluation.mask_measures import pixels_on_patches
from dppmask.evaluation.strategies import compared_strategies
from dppmask.figures.mask_gallery import encoder_for, title_of
from dppmask.figures.patches import Grid, outline, show_heat, show_image, to_uint8
from dppmask.figures.style import QUIET, check_picture_path, new_figure, save_figure, styled
from dppmask.masks import MaskStrategy

COLOURS = "RdBu"  # red: seldom together, blue: often
CHOSEN = "#ffb000"
CAPTION = """how often a patch is visible where the outlined one is, as a multiple of random masks
s.e.: standard errors of the share of masks that show both, from the exact chance"""
_CELL, _LINE = 1.5, 0.155  # inches: a map, a line of text
_NARROWEST, _WIDEST = 1.1, 4.0  # from a quarter of random masks to four times as often, at most

_TICKS = (0.25, 0.5, 1.0, 2.0, 4.0)
_FINE_TICKS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6)  # where the scale is too short for the others

Place = tuple[int, int]  # row and column of a patch


class Panel(NamedTuple):
    """One map.

    Attributes:
        title: Whose.
        values: ``[N]``, see :meth:`CoVisibility.beside`.
        below: What is written below it.
    """

    title: str
    values: Tensor
    below: str


@dataclass(frozen=True, eq=False)
class CoVisibilityMaps:
    """What is drawn.

    Attributes:
        image: uint8 ``[C, H, W]``.
        grid: (rows, columns) of patches.
        place: Row and column of the chosen patch.
        found: Title of each strategy → its pairs of patches.
        note: One line below the picture.
    """

    image: Tensor
    grid: Grid
    place: Place
    found: dict[str, CoVisibility]
    note: str = ""

    @property
    def patch(self) -> int:
        """Index of the chosen patch."""
        return self.place[0] * self.grid[1] + self.place[1]

    @property
    def chosen(self) -> Tensor:
        """Bool ``[N]``: where the chosen patch is."""
        return torch.arange(self.grid[0] * self.grid[1]) == self.patch

    def panels(self) -> Iterator[Panel]:
        """Of each strategy what is exact, unless that is 1 throughout, and what its masks show."""
        for title, pairs in self.found.items():
            if pairs.exact is not None and not self._is_flat(pairs.beside(self.patch, pairs.exact)):
                yield self._panel(f"{title}\nexact", pairs, pairs.exact)
            panel = self._panel(f"{title}\n{pairs.num_masks} masks", pairs, pairs.shares)
            deviation = self._deviation(pairs)
            off = "" if deviation is None else f"\noff by {deviation:.1f} s.e. at most"
            yield panel._replace(below=f"{panel.below}{off}")

    def summary(self) -> list[str]:
        """A line for each strategy."""
        return [f"{' '.join(title.split())}: {self._summary(pairs)}" for title, pairs in self.found.items()]

    def _panel(self, title: str, pairs: CoVisibility, together: Tensor) -> Panel:
        share = together[self.patch, self.patch].item()
        return Panel(title, pairs.beside(self.patch, together), f"itself visible in {share:.1%}")

    def _is_flat(self, values: Tensor) -> bool:
        return bool((values[~self.chosen] - 1).abs().max() < 1e-6)

    def _deviation(self, pairs: CoVisibility) -> float | None:
        """The largest deviation from what is exact, of the pairs that the map shows."""
        deviations = pairs.deviations
        return None if deviations is None else deviations[self.patch][~self.chosen].abs().max().item()

    def _summary(self, pairs: CoVisibility) -> str:
        share = pairs.shares[self.patch, self.patch].item()
        others = pairs.beside(self.patch, pairs.shares)[~self.chosen]
        low, high = (value.item() for value in others.aminmax())
        text = (
            f"patch {self.place[0]}, {self.place[1]} is visible in {share:.1%} of {pairs.num_masks} masks, "
            f"together with others {low:.2f} to {high:.2f} times as often as random masks show them"
        )
        if (deviation := self._deviation(pairs)) is None:
            return text
        limit = rarely_exceeded(len(others))
        return (
            f"{text}; off the exact chances by {deviation:.2f} standard errors at most "
            f"(by chance 1 % would exceed {limit:.2f})"
        )


@styled()
def draw_maps(maps: CoVisibilityMaps, *, figure: Figure | None = None) -> Figure:
    """The image with the chosen patch outlined, and the maps side by side in one scale of colours."""
    panels, (height, width) = list(maps.panels()), maps.image.shape[-2:]
    caption = f"{CAPTION}\n{maps.note}".rstrip()
    if figure is None:
        titles, below = [panel.title for panel in panels], [f"range\n{panel.below}" for panel in panels]
        lines = sum(max(text.count("\n") + 1 for text in texts) for texts in (titles, below, [caption]))
        size = _CELL * (1 + len(panels)) + 0.6, _CELL * height / width + _LINE * lines + 0.3
        figure = new_figure(*size, layout="compressed")
    axes = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    reach, shape = _reach(panels), {"grid": maps.grid, "image_size": (height, width)}
    axes[0].set_title("image", loc="center")
    show_image(axes[0], maps.image)
    for place, panel in zip(axes[1:], panels, strict=True):
        place.set_title(panel.title, loc="center")
        show_heat(place, panel.values, **shape, colours=COLOURS, scale=_scale(reach))
        place.set_xlabel(f"{place.get_xlabel()} ×\n{panel.below}", color=QUIET, fontsize=8)
    for place in axes:
        outline(place, maps.chosen, **shape, colour=CHOSEN, name="chosen")
    _add_scale(figure, reach, axes)
    figure.supxlabel(caption, color=QUIET, fontsize=8)
    return figure


def draw_co_visibility(
    *,
    data: ImageSource,
    mask: list[MaskStrategy],
    mask_ratio: float = 0.75,
    out: str = "covisibility.png",
    image: int = 0,
    patch: tuple[int, int] | None = None,
    num_masks: int = 2000,
    split: Split = "train",
    run: str | None = None,
    backbone: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    seed: int = 0,
) -> tuple[Path, CoVisibilityMaps]:
    """Draw how often masks show a patch where they show a chosen one, as a multiple of random masks.

    Random masks always take part: what their map shows is the noise of so many masks. Of KDPPMask the exact
    chances are drawn too, and how far the masks are off them.

    Args:
        data: Where the image is.
        mask: The strategies; --mask+ adds one.
        mask_ratio: Share of hidden patches.
        out: The picture to write: .png, .pdf or .svg.
        image: Index of the image.
        patch: The chosen patch, as [row, column] from 0. By default the centre of the largest object, where
            the data say what objects there are, else that of the image.
        num_masks: How many masks of each strategy.
        split: Which part of the data: "train" or "val".
        run: A run, or the folder or file of an encoder, whose tokens are compared. Without it the tokens are
            those of a freshly initialised encoder; strategies that read pixels need none.
        backbone: The architecture of that fresh encoder, vit_small_patch16_224 by default.
        image_size: Side of the image in pixels, or (height, width); that of the run, else 224.
        patch_size: Side of a patch in pixels: 16 by default, but that of the run where there is one.
        seed: Of the masks and of a fresh encoder.
    """
    path, source = check_picture_path(out), data.split(split)
    if not 0 <= image < len(source):
        raise UserError(f"image must be in [0, {len(source) - 1}] for {len(source)} images, got {image}")
    encoder, note = encoder_for(
        mask, run=run, backbone=backbone, image_size=image_size, patch_size=patch_size, seed=seed
    )
    transform, sample, subject = eval_transform_of(encoder, source), source[image], Subject(encoder)
    objects = None if sample.objects is None else transform.geometry(sample.objects)
    place = default_place(objects, encoder.grid) if patch is None else check_place(patch, encoder.grid)
    strategies = list(compared_strategies(mask, subject, protocol="covisibility").values())
    needs = frozenset().union(*(strategy.needs for strategy in strategies))
    pixels = transform(sample.image)[0][None]
    try:
        found = co_visibility(
            make_context(pixels, encoder.grid, subject, needs),
            {title_of(strategy): strategy for strategy in strategies},
            mask_ratio=mask_ratio,
            num_masks=num_masks,
            seed=seed,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    shown = to_uint8(pixels, mean=encoder.mean, std=encoder.std)[0]
    maps = CoVisibilityMaps(shown, encoder.grid, place, found, note)
    return save_figure(draw_maps(maps), path), maps


def default_place(objects: Tensor | None, grid: Grid) -> Place:
    """A patch full of the largest object, as near to its centre as may be; without objects, the middle.

    Args:
        objects: bool ``[O, H, W]`` in the image as it is cut into patches; None = not known.
        grid: (rows, columns) of patches.
    """
    rows, columns = grid
    if objects is None or not objects.any():
        return rows // 2, columns // 2
    pixels = pixels_on_patches(objects, grid).double()  # [O, N]
    largest = pixels[pixels.sum(1).argmax()]
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()  # [N, 2]
    centre = largest @ places / largest.sum()
    distance = (places - centre).norm(dim=1).masked_fill(largest < largest.max(), torch.inf)
    return divmod(int(distance.argmin()), columns)


def check_place(place: Place, grid: Grid) -> Place:
    """The place itself.

    Raises:
        UserError: If it is outside the grid.
    """
    (row, column), (rows, columns) = place, grid
    if not (0 <= row < rows and 0 <= column < columns):
        raise UserError(
            f"patch must lie in the grid of {rows} × {columns} patches, got row {row}, column {column}"
        )
    return row, column


def _reach(panels: Sequence[Panel]) -> float:
    """How far from 1 the colours go, up and down: far enough for nineteen values in twenty."""
    values = torch.cat([panel.values for panel in panels])
    values = values[~values.isnan()].clamp(min=1 / _WIDEST)
    return min(max(values.log().abs().quantile(0.95).exp().item(), _NARROWEST), _WIDEST)


def _scale(reach: float) -> LogNorm:
    """Logarithmic: half as often is as far from 1 as twice as often."""
    return LogNorm(1 / reach, reach, clip=True)


def _add_scale(figure: Figure, reach: float, axes: Sequence[Axes]) -> None:
    colours = ScalarMappable(_scale(reach), COLOURS)
    bar = figure.colorbar(colours, ax=axes, extend="both", fraction=0.02, pad=0.01)
    ticks = [tick for tick in (_TICKS if reach >= 2 else _FINE_TICKS) if 1 / reach <= tick <= reach]
    bar.set_ticks(ticks, labels=[f"{tick:g} ×" for tick in ticks])
    bar.minorticks_off()
