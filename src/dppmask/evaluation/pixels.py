"""Pixels in [0, 1]: of images, of what an MAE predicts, and of what one would guess without a network."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dppmask.data.transforms import denormalise
from dppmask.errors import UserError
from dppmask.evaluation.base import Subject
from dppmask.masks import Mask, MaskContext
from dppmask.models.checkpoint import load_model
from dppmask.models.mae import MAE

Grid = tuple[int, int]

BORROWED = (
    "this model was trained on normalised patches: each patch it predicts is given the mean and the contrast "
    "of the true one, which hidden patches do not tell; with method.norm_pix_loss false it predicts them too"
)


def load_mae(subject: Subject, *, protocol: str) -> MAE:
    """The whole MAE of a run, decoder included, on the subject's device.

    Args:
        subject: With a run.
        protocol: Who asks.

    Raises:
        UserError: If the subject is no run of MAE, or was asked to see images of another size.
    """
    if subject.run is None:
        raise UserError(f"{protocol} needs the decoder too; pass a run folder")
    model = load_model(subject.run)
    if not isinstance(model, MAE):
        raise UserError(f"{protocol} reads a run of MAE, but {subject.run} holds {type(model).__name__}")
    wanted = subject.require_encoder(protocol).image_size
    if wanted != model.encoder.image_size:
        raise UserError(
            f"image_size must be that of the run, {model.encoder.image_size}, whose decoder is needed; "
            f"leave it out, got {wanted}"
        )
    return model.to(subject.compute.device)


def true_pixels(model: MAE, images: Tensor) -> Tensor:
    """Normalised images ``[B, C, H, W]`` as pixels in [0, 1]."""
    return denormalise(images.float(), model.encoder.mean, model.encoder.std).clamp(0.0, 1.0)


def predicted_pixels(model: MAE, context: MaskContext, mask: Mask) -> Tensor:
    """Every patch as a model predicts it, hidden or not, as pixels clipped to [0, 1], ``[B, C, H, W]``.

    Per-patch normalisation is undone with the mean and deviation of the true patch. Call it where the model
    is frozen.

    Args:
        model: In evaluation mode.
        context: From ``model.context``, or with the same images and tokens.
        mask: Equally many patches hidden in each row.
    """
    images = context.images
    if images is None:
        raise ValueError("predicted_pixels needs the images of the batch; make a context with them")
    return true_pixels(model, model.to_pixels(model(context, mask).prediction, images))


def plain_guesses(truth: Tensor, masked: Tensor, grid: Grid) -> dict[str, Tensor]:
    """What one would fill in without a network, ``[B, C, H, W]`` each.

    ``visible_mean``: the mean colour of the visible pixels of the image. ``patch_mean``: the true mean colour
    of every patch, which an MAE with normalised patches is given, and another one has to predict.

    Args:
        truth: Pixels ``[B, C, H, W]``.
        masked: bool ``[B, N]``; True = hidden. At least one patch of each row is visible.
        grid: (rows, columns) of patches.
    """
    size = (truth.shape[2], truth.shape[3])
    visible = ~on_pixels(masked, grid, size)  # [B, 1, H, W]
    mean = (truth * visible).sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True)
    patches = F.adaptive_avg_pool2d(truth, grid)
    return {
        "visible_mean": mean.expand_as(truth),
        "patch_mean": F.interpolate(patches, size=size, mode="nearest-exact"),
    }


def squared_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean over the channels of the squared difference: ``[B, C, H, W]`` twice → ``[B, H, W]``."""
    return (predicted - truth).square().mean(1)


def as_uint8(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] as uint8 on the CPU, clipped; the shape stays."""
    return pixels.detach().float().cpu().mul(255).round().clamp(0, 255).to(torch.uint8)


def on_pixels(values: Tensor, grid: Grid, image_size: tuple[int, int]) -> Tensor:
    """Give every pixel the value of its patch: ``[B, N]`` → ``[B, 1, H, W]``."""
    (rows, columns), (height, width) = grid, image_size
    cells = values.unflatten(1, grid)[:, None]
    return cells.repeat_interleave(height // rows, 2).repeat_interleave(width // columns, 3)


def replace_hidden(images: Tensor, by: Tensor, masked: Tensor, grid: Grid) -> Tensor:
    """Hidden patches from ``by``, visible ones from ``images``, both ``[B, C, H, W]``.

    Args:
        images: What is kept where a patch is visible.
        by: What takes the place of the rest.
        masked: bool ``[B, N]``; True = hidden.
        grid: (rows, columns) of patches.
    """
    hidden = on_pixels(masked.to(images.device), grid, (images.shape[2], images.shape[3]))
    return torch.where(hidden, by, images)
