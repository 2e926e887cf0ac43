"""Position tables over a grid of patches: the fixed sine-cosine table of MAE, and resizing between grids."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_table(grid: tuple[int, int], embed_dim: int, *, num_prefix: int = 1) -> Tensor:
    """The fixed sine-cosine table of MAE over a grid, float32 ``[1, P + N, D]``; the prefix rows are zero.

    The first half of the channels encodes the column and the second half the row. Each half is
    ``[sin(c · ω), cos(c · ω)]`` of its coordinate c with ``ω_k = 10000^(-k / (D / 4))``.

    Args:
        grid: (rows, columns), any rectangle.
        embed_dim: D, a multiple of 4.
        num_prefix: P, the class and register tokens that have a row in the table.

    Raises:
        ValueError: If ``embed_dim`` is not a multiple of 4.

    Source: the position embedding of He et al. (2022), "Masked Autoencoders Are Scalable Vision Learners".
    """
    if embed_dim % 4:
        raise ValueError(f"a sine-cosine table needs a width that is a multiple of 4, got {embed_dim}")
    rows, columns = grid
    quarter = embed_dim // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)  # [D / 4]
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [coordinate.flatten()[:, None] * frequency for coordinate in (column, row)]  # two of [N, D / 4]
    table = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)  # [N, D]
    return torch.cat([table.new_zeros(num_prefix, embed_dim), table])[None].float()


def resize_table(table: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """A position table for another grid, by bicubic interpolation; rows before the patches are kept.

    Args:
        table: float ``[1, P + N, D]``, where N belongs to ``old_grid``.
        old_grid: (rows, columns) of the table.
        new_grid: (rows, columns) wanted.
    """
    if old_grid == new_grid:
        return table
    num_prefix = table.shape[1] - old_grid[0] * old_grid[1]
    patches = table[:, num_prefix:].unflatten(1, old_grid).permute(0, 3, 1, 2)  # [1, D, rows, columns]
    resized = F.interpolate(patches.float(), size=new_grid, mode="bicubic", align_corners=False)
    resized = resized.flatten(2).transpose(1, 2).to(table.dtype)  # [1, N', D]
    return torch.cat([table[:, :num_prefix], resized], dim=1)
