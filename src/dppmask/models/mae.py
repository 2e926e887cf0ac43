"""MAE: encode the visible patches, decode all of them, regress the pixels of the hidden ones.

Source: He et al. (2022), "Masked Autoencoders Are Scalable Vision Learners".
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dppmask.masks.base import Mask, MaskContext
from dppmask.models.base import MaskedImageModel, MIMOutput, deferred
from dppmask.models.decoder import Decoder
from dppmask.models.ema import make_teacher
from dppmask.models.encoder import Encoder
from dppmask.views import Views, whole_images

_EPSILON = 1e-6  # added to a patch's variance before the square root


class MAE(MaskedImageModel):
    """Masked autoencoder over any encoder, whose weights it takes as they are.

    Args:
        encoder: The part that is kept after pre-training.
        decoder_embed_dim: Width of the decoder.
        decoder_depth: Blocks of the decoder.
        decoder_num_heads: Attention heads of the decoder.
        decoder_mlp_ratio: Hidden width of the decoder's perceptrons over its width.
        norm_pix_loss: Whether each target patch is normalised to mean 0 and (unbiased) variance 1.
        teacher: Whose tokens and attention a mask strategy may read: "ema" = a moving average of this
            encoder; a frozen one, as :func:`~dppmask.models.checkpoint.load_encoder` takes it; None =
            nobody's. The loss does not depend on it, and the encoder that is exported is the student's.
        teacher_momentum: Of "ema", at the beginning; it rises to 1.

    Raises:
        UserError: If the teacher cannot be loaded, or does not see the same patches.
    """

    needs_equal_counts = True
    provides = frozenset({"images", "tokens"})
    encoder: Encoder

    def __init__(
        self,
        encoder: Encoder,
        *,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        decoder_mlp_ratio: float = 4.0,
        norm_pix_loss: bool = True,
        teacher: str | Path | None = None,
        teacher_momentum: float = 0.996,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.norm_pix_loss = norm_pix_loss
        self.decoder = Decoder(
            encoder.embed_dim,
            encoder.grid,
            encoder.patch_size**2 * encoder.in_chans,
            num_prefix=encoder.num_prefix,
            embed_dim=decoder_embed_dim,
            depth=decoder_depth,
            num_heads=decoder_num_heads,
            mlp_ratio=decoder_mlp_ratio,
        )
        self.teacher = make_teacher(teacher, encoder, momentum=teacher_momentum)
        if self.teacher is not None:
            self.provides = self.provides | self.teacher.provides

    def context(self, batch: Tensor | Views, *, progress: float = 0.0, epoch: int = 0) -> MaskContext:
        """Images and, at first touch, their patch embedding: strategy and encoder share one computation.

        The tokens carry gradient as this call does, even if a strategy first reads them under ``no_grad``.
        The teacher looks at the images only if a strategy asks for it.
        """
        images = whole_images(batch)
        teacher = self.teacher and partial(self.teacher.tokens, images, attention=self.needs_attention)
        return MaskContext(
            images,
            self.encoder.grid,
            progress,
            epoch,
            tokens=deferred(lambda: self.encoder.embed(images)),
            teacher=teacher,
        )

    def forward(self, context: MaskContext, mask: Mask) -> MIMOutput:
        """Mean squared error of the target patches, in float32 also under autocast.

        Args:
            context: From :meth:`context`; needs images and tokens.
            mask: Equally many patches hidden in each row.

        Returns:
            ``loss``: mean over the target patches of the batch. ``patch_loss`` ``[B, N]``: mean over the
            pixels of every patch, scored or not. ``prediction`` ``[B, N, p² · C]``: all patches.

        Raises:
            ValueError: If the context lacks images or tokens, or the mask is ragged.
        """
        images, tokens = context.images, context.tokens
        if images is None or tokens is None:
            raise ValueError(
                "MAE needs the images and tokens of the batch; make the context with MAE.context(images)"
            )
        prediction = self.decoder(self.encoder(tokens, mask), mask)
        patch_loss = (prediction.float() - self.target(images)).square().mean(dim=-1)  # [B, N]
        scored = mask.targets.to(patch_loss.dtype)
        return MIMOutput((patch_loss * scored).sum() / scored.sum(), patch_loss, prediction)

    def before_training(self) -> None:
        """A teacher that follows starts from the first weights."""
        if self.teacher is not None:
            self.teacher.start_from(self)

    def after_step(self, progress: float) -> None:
        """A teacher that follows moves on."""
        if self.teacher is not None:
            self.teacher.follow(self, progress)

    def target(self, images: Tensor) -> Tensor:
        """What is regressed, float32 ``[B, N, p² · C]``: the pixels of each patch, normalised on request."""
        patches = self.patchify(images.float())
        if not self.norm_pix_loss:
            return patches
        mean, scale = _statistics(patches)
        return (patches - mean) / scale

    def to_pixels(self, prediction: Tensor, images: Tensor) -> Tensor:
        """A prediction as images ``[B, C, H, W]``; the statistics of ``images`` undo the normalisation."""
        if self.norm_pix_loss:
            mean, scale = _statistics(self.patchify(images.float()))
            prediction = prediction.float() * scale + mean
        return self.unpatchify(prediction)

    def patchify(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` → patches ``[B, N, p² · C]``, each in the order (row, column, channel)."""
        (rows, columns), p = self.encoder.grid, self.encoder.patch_size
        cells = images.unflatten(2, (rows, p)).unflatten(4, (columns, p))  # [B, C, rows, p, columns, p]
        return cells.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """The inverse of :meth:`patchify`."""
        p, channels = self.encoder.patch_size, self.encoder.in_chans
        cells = patches.unflatten(1, self.encoder.grid).unflatten(-1, (p, p, channels))
        return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), channels, *self.encoder.image_size)


def _statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch, ``[B, N, 1]``; the variance is unbiased."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + _EPSILON).sqrt()
