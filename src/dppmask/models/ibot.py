"""iBOT: a student, some of whose patches are hidden, learns to assign crops and patches as its teacher does.

Source: Zhou et al. (2022), "iBOT: Image BERT Pre-Training with Online Tokenizer".
"""

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from dppmask.errors import UserError
from dppmask.masks.base import Mask, MaskContext, Tokens
from dppmask.models.base import MaskedImageModel, MIMOutput, deferred
from dppmask.models.ema import EMATeacher
from dppmask.models.encoder import Encoder
from dppmask.models.heads import ProjectionHead
from dppmask.models.ibot_loss import IBOTLoss, IBOTTerms, Reduction
from dppmask.views import MultiCrop, Views

__all__ = ["IBOT", "IBOTLoss", "IBOTTerms"]


class ViewsContext(MaskContext):
    """A context whose rows are the global crops, and which keeps the local ones for the loss."""

    views: Views


class IBOT(MaskedImageModel):
    """Self-distillation of class tokens between crops, and of hidden patches within a crop.

    The teacher, a moving average of the student, sees the whole global crops once per step: this one pass
    gives the targets, and whatever a mask strategy reads of it. The student sees the same crops with hidden
    patches replaced by a learned token, and the local crops whole. The teacher's encoder is exported.

    Args:
        encoder: The student; needs a class token.
        out_dim: Width of the class token's assignments.
        patch_out_dim: Width of the patches' assignments, with a last layer of their own; None = both kinds of
            tokens share one.
        head_hidden_dim: Width of the projection head's hidden layers.
        head_bottleneck_dim: Dimension of the space in which tokens are compared with prototypes.
        norm_last_layer: Fix the length of the prototypes to 1.
        freeze_last_layer_epochs: Epochs at the beginning in which the prototypes do not move.
        num_global_crops: G, crops in which patches are hidden.
        num_local_crops: M.
        local_size: Side of a local crop in pixels, a multiple of the patch size.
        local_scale: Smallest and largest share of an image that a local crop covers.
        light: Strength of the augmentation's changes of brightness, contrast and sharpness, from 0 to 1.
        colour: Likewise of saturation and hue, grey crops and solarisation.
        teacher_momentum: Of the moving average at the beginning; it rises to 1.
        warmup_teacher_temp: Both of the teacher's temperatures in epoch 0.
        teacher_temp: The temperature of its class tokens after the warm-up.
        patch_teacher_temp: The temperature of its patches after the warm-up.
        warmup_teacher_temp_epochs: Length of that warm-up.
        student_temp: The student's temperature.
        center_momentum: Weight of a center's past at each update.
        reduction: See :class:`IBOTLoss`.

    Raises:
        UserError: If the encoder has no class token, or a number is out of range.
    """

    needs_equal_counts = False
    exported = "teacher.encoder"
    encoder: Encoder

    def __init__(
        self,
        encoder: Encoder,
        *,
        out_dim: int = 8192,
        patch_out_dim: int | None = None,
        head_hidden_dim: int = 2048,
        head_bottleneck_dim: int = 256,
        norm_last_layer: bool = False,
        freeze_last_layer_epochs: int = 1,
        num_global_crops: int = 2,
        num_local_crops: int = 10,
        local_size: int = 96,
        local_scale: tuple[float, float] = (0.05, 0.25),
        light: float = 1.0,
        colour: float = 1.0,
        teacher_momentum: float = 0.996,
        warmup_teacher_temp: float = 0.04,
        teacher_temp: float = 0.07,
        patch_teacher_temp: float = 0.07,
        warmup_teacher_temp_epochs: int = 30,
        student_temp: float = 0.1,
        center_momentum: float = 0.9,
        reduction: Reduction = "diluted",
    ) -> None:
        super().__init__()
        _check_encoder(encoder, num_local_crops, local_size)
        self.multi_crop = MultiCrop(
            num_global_crops, num_local_crops, local_size, local_scale, light=light, colour=colour
        )
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        self.warmup_teacher_temp_epochs = warmup_teacher_temp_epochs
        for name in ("freeze_last_layer_epochs", "warmup_teacher_temp_epochs"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be at least 0, got {getattr(self, name)}; 0 = not at all")
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        self.head = ProjectionHead(
            encoder.embed_dim,
            out_dim,
            patch_out_dim,
            hidden_dim=head_hidden_dim,
            bottleneck_dim=head_bottleneck_dim,
            norm_last_layer=norm_last_layer,
        )
        self.teacher = EMATeacher(teacher_momentum, encoder, head=self.head)
        self.provides = frozenset({"images", "tokens"}) | self.teacher.provides
        self.loss = IBOTLoss(
            out_dim,
            out_dim if patch_out_dim is None else patch_out_dim,
            num_global_crops,
            num_local_crops,
            warmup_teacher_temp,
            teacher_temp,
            warmup_teacher_temp,
            patch_teacher_temp,
            warmup_teacher_temp_epochs,
            epochs=warmup_teacher_temp_epochs,  # temperatures are flat from there on, however long it lasts
            student_temp=student_temp,
            center_momentum=center_momentum,
            reduction=reduction,
        )

    def context(self, batch: Tensor | Views, *, progress: float = 0.0, epoch: int = 0) -> ViewsContext:
        """The global crops; at first touch the student's embedding of them and the teacher's tokens.

        Args:
            batch: Views; images alone are enough for choosing a mask, but not for the loss.
            progress: Share of the training done.
            epoch: The current epoch, from 0.
        """
        views = batch if isinstance(batch, Views) else Views(batch, num_global=1)
        images = views.global_crops
        context = ViewsContext(
            images,
            self.encoder.grid,
            progress,
            epoch,
            tokens=deferred(lambda: self.encoder.embed(images)),
            teacher=partial(self.teacher.tokens, images, attention=self.needs_attention),
        )
        context.views = views
        return context

    def forward(self, context: MaskContext, mask: Mask) -> MIMOutput:
        """The loss of one batch; moves the centers of the teacher's logits.

        Args:
            context: From :meth:`context`.
            mask: Of the ``G · B`` global crops; rows may hide different numbers of patches, or none.

        Returns:
            ``loss``; ``patch_loss`` ``[G · B, N]``: the cross-entropy of every patch, hidden or not; and both
            parts of the loss as metrics.

        Raises:
            ValueError: If the context was made otherwise, or of another number of crops.
        """
        views = self._check_views(context)
        student = self.encoder(cast(Tensor, context.tokens), mask, mask_token=self.mask_token)
        student_cls, student_patch = self.head(student.prefix[:, 0], student.patches)
        teacher_cls, teacher_patch = self._teacher_logits(cast(Tokens, context.teacher))
        terms = self.loss(
            student_cls=student_cls,
            student_patch=student_patch,
            student_local_cls=self._local_cls(views.local_crops),
            teacher_cls=teacher_cls,
            teacher_patch=teacher_patch,
            masked=mask.targets.unflatten(0, (views.num_global, -1)),
            epoch=context.epoch,
        )
        metrics = {"cls_loss": terms.cls, "patch_loss": terms.patch}
        return MIMOutput(terms.loss, terms.patch_loss, metrics=metrics)

    def check_epochs(self, epochs: int) -> None:
        """The last layer and the temperatures begin with epochs of their own, which must fit."""
        for name in ("freeze_last_layer_epochs", "warmup_teacher_temp_epochs"):
            if getattr(self, name) > epochs:
                raise UserError(
                    f"{name} must be at most epochs ({epochs}), got {getattr(self, name)}; lower it or train "
                    "longer"
                )

    def before_training(self) -> None:
        """The teacher starts as the student."""
        self.teacher.start_from(self)

    def before_step(self, epoch: int) -> None:
        """Without a gradient the prototypes stay where they are, weight decay included."""
        if epoch < self.freeze_last_layer_epochs:
            for parameter in self.head.last.parameters():
                parameter.grad = None

    def after_step(self, progress: float) -> None:
        """The teacher follows."""
        self.teacher.follow(self, progress)

    @torch.no_grad()
    def cls_logits(self, images: Tensor) -> Tensor:
        """The teacher's logits of the class tokens of whole images, ``[B, C, H, W]`` → ``[B, K]``."""
        return self._teacher_logits(self.teacher.tokens(images, attention=False))[0]

    @torch.no_grad()
    def _teacher_logits(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        return self.teacher.get_submodule("head")(tokens.prefix[:, 0], tokens.patches)

    def _local_cls(self, crops: Tensor | None) -> Tensor | None:
        """The student's logits of the class tokens of whole local crops."""
        if crops is None:
            return None
        tokens = self.encoder(self.encoder.embed(crops, any_size=True))
        return self.head(tokens.prefix[:, 0])[0]

    def _check_views(self, context: MaskContext) -> Views:
        """The views of a context, if they are as many as the method was built for."""
        views = getattr(context, "views", None)
        wanted = cast(MultiCrop, self.multi_crop)
        if views is None:
            raise ValueError("IBOT needs the views of the batch; make the context with IBOT.context(views)")
        if (views.num_global, views.num_local) != (wanted.num_global, wanted.num_local):
            raise ValueError(
                f"IBOT was built for {wanted.num_global} global and {wanted.num_local} local crops, "
                f"got {views.num_global} and {views.num_local}"
            )
        return views


def _check_encoder(encoder: Encoder, num_local_crops: int, local_size: int) -> None:
    if not encoder.backbone.has_class_token:
        raise UserError(
            f"IBOT needs a class token, which {encoder.backbone_name} lacks; use a backbone such as "
            "vit_small_patch16_224"
        )
    if num_local_crops and (local_size < 1 or local_size % encoder.patch_size):
        raise UserError(
            f"local_size must be a multiple of patch_size {encoder.patch_size}, got {local_size}; "
            f"{max(local_size // encoder.patch_size, 1) * encoder.patch_size} would do"
        )
