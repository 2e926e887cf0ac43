"""Strategies made of strategies."""

from typing import Any, cast

from torch import Tensor

from dppmask.errors import UserError
from dppmask.masks.base import Mask, MaskContext, MaskStrategy, Tokens

Grid = tuple[int, int]


class Coarse(MaskStrategy):
    """Mask square cells of patches together, as SimMIM does with 32-pixel units on a grid of finer patches.

    The wrapped strategy sees the grid of cells: tokens averaged over each cell, images as they are. It hides
    just enough cells, of which one always stays visible. Where the count is no multiple of the cell, hidden
    patches with the smallest noise are shown again, or visible ones with the largest noise are hidden, until
    it is exact.

    Args:
        strategy: Any strategy.
        cell: Side of a cell, in patches.

    Raises:
        ValueError: If ``cell`` is below 1; when a mask is chosen, if the grid is unknown or no multiple of
            the cell.

    Source: Xie et al. (2022), *SimMIM: A Simple Framework for Masked Image Modeling*, section 3.2.
    """

    def __init__(self, strategy: MaskStrategy, cell: int = 2) -> None:
        super().__init__()
        if cell < 1:
            raise ValueError(f"cell must be at least 1, got {cell}; 2 joins 2 × 2 patches")
        self.strategy = strategy
        self.cell = cell
        self.needs = strategy.needs
        self.syncs = strategy.syncs

    def features(self, context: MaskContext) -> tuple[Any, Grid]:
        """What the wrapped strategy reads of the cells, and the grid of cells."""
        cells = cell_grid(context.grid, self.cell)
        return self.strategy.features(coarsen(context, self.cell)), cells

    def choose(self, features: tuple[Any, Grid], noise: Tensor, num_masked: int | Tensor) -> Mask:
        """The mask as a pure function of :meth:`features`, noise ``[B, N]`` and counts."""
        cell_features, (rows, columns) = features
        # A sum of uniforms modulo 1 is uniform, and no patch of the cell is special in it.
        cell_noise = split_cells(noise, (rows, columns), self.cell).sum(-1) % 1.0  # [B, U]
        inner = self.strategy.choose(cell_features, cell_noise, self._num_cells(num_masked, rows * columns))

        def spread(x: Tensor) -> Tensor:  # [B, U] → [B, N]
            return join_cells(x, (rows, columns), self.cell)

        hidden = spread(inner.masked)
        masked = Mask.from_scores(noise - (~hidden).to(noise.dtype), num_masked)  # visible cells lie below 0
        return Mask(
            masked.masked,
            masked.num_masked,
            target=None if inner.target is None else masked.masked & (spread(inner.target) | ~hidden),
            scores=None if inner.scores is None else spread(inner.scores),
            soft=None if inner.soft is None else spread(inner.soft),
        )

    def objective(self, mask: Mask, patch_loss: Tensor) -> Tensor | None:
        """That of the wrapped strategy, at the grid of patches."""
        return self.strategy.objective(mask, patch_loss)

    def _num_cells(self, num_masked: int | Tensor, num_cells: int) -> int | Tensor:
        """Enough cells to cover the count, at most all but one."""
        area = self.cell**2
        if isinstance(num_masked, Tensor):
            return ((num_masked + area - 1) // area).clamp(max=num_cells - 1)
        return min((num_masked + area - 1) // area, num_cells - 1)


def cell_grid(grid: Grid | None, cell: int) -> Grid:
    """The grid of cells of ``cell × cell`` patches.

    Raises:
        ValueError: If the grid is unknown.
        UserError: If it is no multiple of the cell.
    """
    if grid is None:
        raise ValueError("Coarse needs the grid of patches; pass grid=(rows, columns) to the context")
    rows, columns = grid
    if rows % cell or columns % cell:
        raise UserError(f"cell must divide the grid, got cell {cell} for {rows} × {columns} patches")
    return rows // cell, columns // cell


def coarsen(context: MaskContext, cell: int) -> MaskContext:
    """The context at the grid of cells: the same images; tokens and attention averaged over cells, lazily."""
    cells = cell_grid(context.grid, cell)

    def pooled_tokens() -> Tensor:
        return pool_patches(cast(Tensor, context.tokens), cells, cell)

    def pooled_teacher() -> Tokens:
        teacher = cast(Tokens, context.teacher)
        attention = (
            None if teacher.attention is None else split_cells(teacher.attention, cells, cell).mean(-1)
        )
        return Tokens(teacher.prefix, pool_patches(teacher.patches, cells, cell), attention)

    return MaskContext(
        context.images,
        cells,
        context.progress,
        context.epoch,
        tokens=pooled_tokens if context.has_tokens else None,
        teacher=pooled_teacher if context.has_teacher else None,
        sample_ids=context.sample_ids,
        crops=context.crops,
    )


def pool_patches(patches: Tensor, cells: Grid, cell: int) -> Tensor:
    """Average over each cell: ``[B, N, D]`` → ``[B, U, D]``."""
    return split_cells(patches.transpose(1, 2), cells, cell).mean(-1).transpose(1, 2)


def split_cells(x: Tensor, cells: Grid, cell: int) -> Tensor:
    """Gather the patches of each cell: ``[..., N]`` → ``[..., U, cell²]``, cells row-major."""
    rows, columns = cells
    x = x.unflatten(-1, (rows, cell, columns, cell))
    return x.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def join_cells(x: Tensor, cells: Grid, cell: int) -> Tensor:
    """Give each patch its cell's value: ``[B, U]`` → ``[B, N]``."""
    return x.unflatten(-1, cells).repeat_interleave(cell, -2).repeat_interleave(cell, -1).flatten(-2)
