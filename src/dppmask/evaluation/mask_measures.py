"""Numbers about a mask: what it shows of each object, how different and how far apart its patches are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dppmask.dpp import gaussian_kernel
from dppmask.masks.base import Mask

Found = dict[str, tuple[Tensor, Tensor]]  # statistic → numerator and denominator of each image, float64 [B]

LOST_BELOW = 0.05  # an object of which less is visible counts as lost
JITTER = (
    1e-6  # added to the unit diagonal before the determinant: repeated patches cost ln(1e-6), not infinity
)


@dataclass(frozen=True, eq=False)
class PatchObjects:
    """Where the objects of a batch lie on its patches.

    Attributes:
        pixels: float ``[O, N]``, how many pixels of each object lie on each patch.
        image: int64 ``[O]``, the row of the batch each object belongs to.
        batch_size: B.
    """

    pixels: Tensor
    image: Tensor
    batch_size: int

    @classmethod
    def join(cls, images: Sequence[Tensor]) -> "PatchObjects":
        """From one ``[O_i, N]`` per image; objects without a pixel on any patch are dropped."""
        seen = [pixels[pixels.sum(1) > 0] for pixels in images]
        counts = torch.tensor([len(pixels) for pixels in seen])
        return cls(torch.cat(seen), torch.arange(len(seen)).repeat_interleave(counts), len(seen))

    def repeated(self, row: int, times: int) -> "PatchObjects":
        """The objects of one image, as those of a batch that shows it many times."""
        return PatchObjects.join([self.pixels[self.image == row]] * times)

    def visible_share(self, mask: Mask) -> Tensor:
        """The share of each object's pixels that lie on visible patches, ``[O]``."""
        visible = ~mask.masked.cpu()[self.image]  # [O, N]
        return (self.pixels * visible).sum(1) / self.pixels.sum(1)

    def lose_any(self, mask: Mask) -> Tensor:
        """Whether the mask of an image loses at least one of its objects, bool ``[B]``."""
        return self.per_image(self.visible_share(mask) < LOST_BELOW) > 0

    def per_image(self, values: Tensor) -> Tensor:
        """Sum one value per object over the objects of each image: ``[O]`` → float64 ``[B]``."""
        return torch.zeros(self.batch_size, dtype=torch.float64).index_add(0, self.image, values.double())


def pixels_on_patches(objects: Tensor, grid: tuple[int, int]) -> Tensor:
    """How many pixels of each object lie on each patch: bool ``[O, H, W]`` → float32 ``[O, N]``.

    Args:
        objects: In the image as the encoder sees it; the grid divides its sides.
        grid: (rows, columns) of patches.
    """
    height, width = objects.shape[1:]
    rows, columns = grid
    cells = objects.reshape(len(objects), rows, height // rows, columns, width // columns)
    return cells.sum((2, 4)).flatten(1).float()


def log_det(features: Tensor, mask: Mask, *, bandwidth: float = 1.0) -> Tensor:
    """Log-determinant of the Gaussian kernel on the visible patches plus ``1e-6 I``, float64 ``[B]``.

    At most about 0, where all visible patches are orthogonal; the larger, the more different they are.

    Args:
        features: ``[B, N, D]``, one vector per patch.
        mask: Equally many patches hidden in each row.
        bandwidth: σ of the kernel.
    """
    kernel = gaussian_kernel(features.double(), bandwidth=bandwidth)  # [B, N, N]
    ids = mask.ids_keep
    size = ids.shape[1]
    rows = kernel.gather(1, ids[:, :, None].expand(-1, -1, kernel.shape[2]))
    visible = rows.gather(2, ids[:, None, :].expand(-1, size, -1))  # [B, K, K]
    return torch.linalg.slogdet(visible + JITTER * torch.eye(size, dtype=visible.dtype).to(visible)).logabsdet


def spread(mask: Mask, grid: tuple[int, int]) -> Tensor:
    """Mean distance between two visible patches over that between any two patches, float64 ``[B]``.

    Distances are Euclidean between centres, in patches. Uniformly random masks have 1 in expectation.

    Args:
        mask: At least two visible patches in each row.
        grid: (rows, columns) of patches.
    """
    rows, columns = grid
    centres = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()  # [N, 2]
    distances = torch.cdist(centres, centres)
    visible = (~mask.masked.cpu()).double()
    num_keep, num_patches = visible.sum(1), len(centres)
    within = ((visible @ distances) * visible).sum(1) / (num_keep * (num_keep - 1))
    return within / (distances.sum() / (num_patches * (num_patches - 1)))


def overlap(one: Mask, other: Mask) -> Tensor:
    """The share of the patches visible in one mask that are visible in the other too, float64 ``[B]``.

    Two independent uniform masks share K / N of them in expectation.
    """
    first, second = ~one.masked, ~other.masked
    return ((first & second).sum(1) / first.sum(1)).double().cpu()


def greedy_picks(gains: Tensor) -> Tensor:
    """Number of patches picked for their gain, float64 ``[B]``, from the scores ``[B, N]`` of DPP masks."""
    return (gains > 0).sum(1).double().cpu()


def beside_random(values: tuple[Tensor, Tensor], random: tuple[Tensor, Tensor] | None) -> dict[str, float]:
    """Value and standard error of a statistic, and of its difference to random masks, paired by image.

    Args:
        values: Numerator and denominator of each image, ``[n]`` each.
        random: The same of random masks, with equal denominators; None leaves the difference out.
    """
    value, error = ratio(*values)
    columns = {"value": value, "standard_error": error}
    if random is not None:
        difference, error = ratio(values[0] - random[0], values[1])
        columns |= {"minus_random": difference, "minus_random_standard_error": error}
    return columns


def ratio(numerators: Tensor, denominators: Tensor) -> tuple[float, float]:
    """``Σ numerators / Σ denominators`` over images ``[n]``, n ≥ 2, and its standard error.

    The error treats images as independent and whatever happens within one (its objects, its masks) as a
    cluster; with unit denominators both are those of a plain mean.

    Source: Cochran (1977), *Sampling Techniques*, section 2.11 (linearised ratio estimator).
    """
    value = numerators.sum() / denominators.sum()
    residual = numerators - value * denominators
    count = len(numerators)
    error = (residual.square().sum() * count / (count - 1)).sqrt() / denominators.sum()
    return value.item(), error.item()
