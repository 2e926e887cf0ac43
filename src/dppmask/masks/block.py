"""Block-wise masks: rectangles of neighbouring patches are hidden, as in BEiT and iBOT."""

import math

import torch
from torch import Tensor

from dppmask.dpp.checks import can_look_at, no_autocast
from dppmask.masks.base import Mask, MaskContext, MaskStrategy
from dppmask.masks.streams import uniforms

Grid = tuple[int, int]

# The most blocks a mask is made of. Masks of 75 % on 14 × 14 patches take 9 on average and 17 at the most of
# 500; only near the end of a mask of nearly everything, where blocks add a patch each, would there be more.
MAX_BLOCKS = 32


class BlockMask(MaskStrategy):
    """Hide rectangles of random area, shape and place, until the count is reached.

    With c of n patches hidden, a block is proposed: its area is uniform between ``min_area`` and n - c (in
    whichever order they stand), the logarithm of its height over its width is uniform, both sides are
    rounded, and its place is uniform among those inside the grid. It must span neither the whole height nor
    the whole width of the grid, hide at least one patch more, and no more than n - c. After ``tries``
    proposals in a row that are refused the mask is finished.

    It may then fall short of n. The visible patches with the largest noise make up for it, on 14 × 14 patches
    about one at every second image; with ``exact=False`` nothing does, and rows have different counts. On
    grids without room for a block (a single row or column) the noise decides alone.

    Args:
        min_area: Smallest area proposed, in patches. None: a ninth of a square grid, as iBOT has it, which
            for 14 × 14 is the 16 of BEiT.
        max_area: Largest area proposed, and most that one block may add; None = what is still to be hidden.
        min_aspect: Height over width is between this and its inverse, in (0, 1].
        tries: Proposals before the mask is finished.
        exact: Whether every row hides exactly the count.

    Raises:
        ValueError: If an argument is out of range; when a mask is chosen, if the grid is unknown.

    Source: Bao et al. (2022), *BEiT: BERT Pre-Training of Image Transformers*, Algorithm 1; in the variant of
        Zhou et al. (2022), *iBOT: Image BERT Pre-Training with Online Tokenizer*.
    """

    def __init__(
        self,
        min_area: int | None = None,
        max_area: int | None = None,
        min_aspect: float = 0.3,
        tries: int = 10,
        exact: bool = True,
    ) -> None:
        super().__init__()
        for name, area in {"min_area": min_area, "max_area": max_area}.items():
            if area is not None and area < 1:
                raise ValueError(f"{name} must be at least 1 patch, got {area}; BEiT's smallest is 16")
        if not 0.0 < min_aspect <= 1.0:
            raise ValueError(f"min_aspect must be in (0, 1], got {min_aspect}; BEiT uses 0.3, 1 is square")
        if tries < 1:
            raise ValueError(f"tries must be at least 1, got {tries}; BEiT uses 10")
        self.min_area = min_area
        self.max_area = max_area
        self.min_aspect = min_aspect
        self.tries = tries
        self.exact = exact

    def features(self, context: MaskContext) -> Grid:
        """The grid of patches; the images do not matter."""
        if context.grid is None:
            raise ValueError("BlockMask needs the grid of patches; pass grid=(rows, columns) to the context")
        return context.grid

    def choose(self, features: Grid, noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask as a pure function of the grid, noise ``[B, N]`` and one count or int64 ``[B]``."""
        blocks = self.hide_blocks(features, noise, num_masked)
        if not self.exact:
            return Mask(blocks)
        return Mask.from_scores(noise.masked_fill(blocks, 1.0), num_masked)  # all noise is below 1

    def hide_blocks(self, grid: Grid, noise: Tensor, num_masked: int | Tensor) -> Tensor:
        """What the blocks hide, bool ``[B, N]``, at most ``num_masked`` in a row.

        All tries for one block are made at once, and the first that may stay does.
        """
        if isinstance(num_masked, Tensor):
            num_masked = num_masked.to(noise.device, non_blocking=True)
        remaining = noise.new_zeros(len(noise)) + num_masked  # [B], still to be hidden
        going = torch.ones_like(remaining, dtype=torch.bool)
        visible = noise.new_ones(len(noise), *grid)
        draws = uniforms(noise, MAX_BLOCKS * self.tries * 4).unflatten(1, (MAX_BLOCKS, self.tries, 4))
        for draw in draws.unbind(1):
            most = remaining if self.max_area is None else remaining.clamp(max=self.max_area)
            in_rows, in_columns = self._propose(draw, most[:, None], grid)
            with no_autocast(noise):  # small whole numbers: exact, whatever the precision of products
                added = ((in_rows @ visible) * in_columns).sum(2)  # [B, tries], visible patches inside
            fits = (added > 0) & (added <= most[:, None]) & going[:, None]
            going = fits.any(1)
            first = fits.byte().argmax(1, keepdim=True)
            block = _pick(in_rows, first)[:, :, None] * _pick(in_columns, first)[:, None]
            visible = visible * (1 - block * going[:, None, None])
            remaining = remaining - added.gather(1, first)[:, 0] * going
            if can_look_at(going) and not going.any():
                break  # saves time and changes nothing
        return visible.flatten(1) == 0

    def _propose(self, draw: Tensor, most: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Blocks out of uniform numbers ``[B, tries, 4]``; empty where one would be too large.

        Returns:
            ``[B, tries, rows]`` and ``[B, tries, columns]``: 1 for the rows and columns inside, else 0.
        """
        rows, columns = grid
        least = (min(grid) // 3) ** 2 if self.min_area is None else self.min_area
        size, shape, down, right = draw.unbind(-1)
        area = least + (most - least) * size
        aspect = (math.log(self.min_aspect) * (1 - 2 * shape)).exp()
        height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        height = height.masked_fill((height >= rows) | (width >= columns), 0)
        top, left = (down * (rows - height + 1)).floor(), (right * (columns - width + 1)).floor()
        return _between(top, top + height, rows), _between(left, left + width, columns)


def _between(first: Tensor, end: Tensor, length: int) -> Tensor:
    """Which of 0 … length - 1 are in [first, end), float: ``[B, tries]`` → ``[B, tries, length]``."""
    index = torch.arange(length, device=first.device)
    return ((index >= first[..., None]) & (index < end[..., None])).to(first.dtype)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """One try of each image: ``[B, tries, length]``, ``[B, 1]`` → ``[B, length]``."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))[:, 0]
