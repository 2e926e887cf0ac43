"""The two losses of iBOT: a student's assignments must match a centred and sharpened teacher's.

Source: Zhou et al. (2022), "iBOT: Image BERT Pre-Training with Online Tokenizer"; centring and temperatures:
Caron et al. (2021), "Emerging Properties in Self-Supervised Vision Transformers".
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.distributed
from torch import Tensor, nn

from dppmask.dpp.checks import as_real, no_autocast
from dppmask.errors import UserError, nearest

Reduction = Literal["diluted", "masked"]


@dataclass(frozen=True, eq=False)
class IBOTTerms:
    """What :class:`IBOTLoss` returns.

    Attributes:
        loss: ``cls + patch``.
        cls: Between class tokens of different views.
        patch: Between hidden patches and the teacher's view of them.
        patch_loss: ``[G * B, N]``, the cross-entropy of every patch, hidden or not.
    """

    loss: Tensor
    cls: Tensor
    patch: Tensor
    patch_loss: Tensor


class IBOTLoss(nn.Module):
    """Cross-entropies between the assignments of a student and those of its teacher.

    Views are numbered v = 0, …, G + M - 1, global ones first, and all tensors are view-major: row
    ``v * B + b``. With assignments ``P_s = softmax(z_s / student_temp)`` of the student and
    ``P_t = softmax((z_t - center) / temperature)`` of the teacher:

    - class tokens: the mean of ``CE(P_t[q], P_s[v])`` over images and over all pairs of a global view q and
      another view v;
    - patches: the mean of ``CE(P_t[q, i], P_s[q, i])`` over the hidden patches i of a view, then over views.

    After the loss each center moves to the mean logits of the teacher, over the whole batch of all ranks and,
    for patches, over hidden and visible ones.

    Everything is computed in float32 (float64 if the logits are), also under autocast.

    Args:
        out_dim: K, width of the class token's assignments.
        patch_out_dim: Width of the patches' assignments.
        num_global_crops: G.
        num_local_crops: M.
        warmup_teacher_temp: Temperature of the teacher's class tokens in epoch 0.
        teacher_temp: The same at the end of the warm-up and after it.
        warmup_patch_teacher_temp: Temperature of the teacher's patches in epoch 0.
        patch_teacher_temp: The same at the end of the warm-up and after it.
        warmup_epochs: Epochs over which temperatures rise linearly; the last of them has the final value.
        epochs: Length of the training.
        student_temp: Temperature of the student.
        center_momentum: Weight of a center's past at each update.
        reduction: Over which views the patch term is averaged. "diluted": all of them, those without a hidden
            patch as 0, so that the term shrinks with the share of masked views (the original). "masked":
            those with a hidden patch.

    Attributes:
        center: ``[1, K]``, of the class tokens.
        patch_center: ``[1, 1, K]``, of the patches.

    Raises:
        UserError: If a number is out of range, or there is but one view and hence no pair.
    """

    center: Tensor
    patch_center: Tensor

    def __init__(
        self,
        out_dim: int,
        patch_out_dim: int,
        num_global_crops: int,
        num_local_crops: int,
        warmup_teacher_temp: float,
        teacher_temp: float,
        warmup_patch_teacher_temp: float,
        patch_teacher_temp: float,
        warmup_epochs: int,
        epochs: int,
        student_temp: float = 0.1,
        center_momentum: float = 0.9,
        reduction: Reduction = "diluted",
    ) -> None:
        super().__init__()
        self.num_global_crops = num_global_crops
        self.num_local_crops = num_local_crops
        self.cls_temps = (warmup_teacher_temp, teacher_temp)
        self.patch_temps = (warmup_patch_teacher_temp, patch_teacher_temp)
        self.warmup_epochs = warmup_epochs
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.reduction = reduction
        self._check(epochs)
        self.register_buffer("center", torch.zeros(1, out_dim))
        self.register_buffer("patch_center", torch.zeros(1, 1, patch_out_dim))

    def forward(
        self,
        *,
        student_cls: Tensor,
        student_patch: Tensor,
        student_local_cls: Tensor | None,
        teacher_cls: Tensor,
        teacher_patch: Tensor,
        masked: Tensor,
        epoch: int,
    ) -> IBOTTerms:
        """The losses of one batch, then the update of both centers.

        Args:
            student_cls: Logits ``[G * B, K]`` of the global crops, in which patches may be hidden.
            student_patch: Logits ``[G * B, N, K]``.
            student_local_cls: Logits ``[M * B, K]``, or None where there are no local crops.
            teacher_cls: Logits ``[G * B, K]`` of the whole global crops; no gradient reaches them.
            teacher_patch: Logits ``[G * B, N, K]``.
            masked: bool ``[G, B, N]``, the patches that are scored.
            epoch: The current epoch, from 0.
        """
        student = student_cls if student_local_cls is None else torch.cat([student_cls, student_local_cls])
        with no_autocast(student_cls):
            cls = self._cls_loss(as_real(student, "student_cls"), as_real(teacher_cls, "teacher_cls"), epoch)
            patch_loss = self._patch_loss(
                as_real(student_patch, "student_patch"), as_real(teacher_patch, "teacher_patch"), epoch
            )  # [G * B, N]
            patch = self._reduce(patch_loss, masked.flatten(0, 1))
        self._update_centers(teacher_cls, teacher_patch)
        return IBOTTerms(cls + patch, cls, patch, patch_loss)

    def temperature(self, epoch: int, ends: tuple[float, float]) -> float:
        """Of the teacher: ``ends[0]`` in epoch 0, linear to ``ends[1]`` in the last epoch of the warm-up."""
        if epoch >= self.warmup_epochs:
            return ends[1]
        return ends[0] + (ends[1] - ends[0]) * epoch / max(self.warmup_epochs - 1, 1)

    @property
    def num_views(self) -> int:
        """V = G + M."""
        return self.num_global_crops + self.num_local_crops

    def _cls_loss(self, student: Tensor, teacher: Tensor, epoch: int) -> Tensor:
        """Mean over images and over pairs of different views."""
        target = assignments(teacher, self.center, self.temperature(epoch, self.cls_temps))
        targets = target.unflatten(0, (self.num_global_crops, -1))  # [G, B, K]
        predicted = (student / self.student_temp).log_softmax(-1).unflatten(0, (self.num_views, -1))
        pairs = [(q, v) for q in range(self.num_global_crops) for v in range(self.num_views) if q != v]
        return torch.stack([cross_entropy(targets[q], predicted[v]).mean() for q, v in pairs]).mean()

    def _patch_loss(self, student: Tensor, teacher: Tensor, epoch: int) -> Tensor:
        target = assignments(teacher, self.patch_center, self.temperature(epoch, self.patch_temps))
        return cross_entropy(target, (student / self.student_temp).log_softmax(-1))

    def _reduce(self, patch_loss: Tensor, masked: Tensor) -> Tensor:
        """Mean over the hidden patches of each view, then over views; 0, with a gradient, without any."""
        weights = masked.to(patch_loss.dtype)
        of_views = (patch_loss * weights).sum(1) / weights.sum(1).clamp(min=1)  # [G * B]
        if self.reduction == "diluted":
            return of_views.mean()
        # The share of all ranks, so that the mean over ranks is the mean over the whole batch.
        share = mean_over_ranks(masked.any(1).to(patch_loss.dtype).mean())
        return of_views.mean() / share.where(share > 0, 1)

    @torch.no_grad()
    def _update_centers(self, teacher_cls: Tensor, teacher_patch: Tensor) -> None:
        for center, logits in ((self.center, teacher_cls), (self.patch_center, teacher_patch)):
            mean = as_real(logits, "teacher logits").flatten(0, -2).mean(0)  # [K]
            center.lerp_(mean_over_ranks(mean).to(center.dtype).view_as(center), 1 - self.center_momentum)

    def _check(self, epochs: int) -> None:
        if self.num_global_crops < 1 or self.num_local_crops < 0 or self.num_views < 2:
            raise UserError(
                "iBOT compares views: it needs at least 1 global crop and 2 crops in all, got "
                f"num_global_crops {self.num_global_crops} and num_local_crops {self.num_local_crops}"
            )
        self._check_temperatures()
        if not 0 <= self.warmup_epochs <= epochs:
            raise UserError(
                f"warmup_epochs of the temperatures must be between 0 and the training's {epochs} epochs, "
                f"got {self.warmup_epochs}"
            )
        if not 0.0 <= self.center_momentum <= 1.0:
            raise UserError(f"center_momentum must be in [0, 1], got {self.center_momentum}; iBOT uses 0.9")
        if self.reduction not in get_args(Reduction):
            hint = nearest(str(self.reduction), get_args(Reduction))
            raise UserError(f"reduction must say which views count, got {self.reduction!r}; {hint}")

    def _check_temperatures(self) -> None:
        temperatures = {
            "warmup_teacher_temp": self.cls_temps[0],
            "teacher_temp": self.cls_temps[1],
            "warmup_patch_teacher_temp": self.patch_temps[0],
            "patch_teacher_temp": self.patch_temps[1],
            "student_temp": self.student_temp,
        }
        for name, temperature in temperatures.items():
            if not 0.0 < temperature < math.inf:
                raise UserError(
                    f"{name} must be positive and finite, got {temperature}; iBOT's teacher goes from "
                    "0.04 to 0.07, its student has 0.1"
                )


def assignments(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Softmax of a teacher's logits ``[..., K]``, centred and sharpened; without gradient."""
    return ((logits.detach() - center) / temperature).softmax(-1)


def cross_entropy(target: Tensor, log_predicted: Tensor) -> Tensor:
    """Between distributions ``[..., K]``, of which the second is given by its logarithm: ``[...]``."""
    return -(target * log_predicted).sum(-1)


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a value that each rank has, without gradient; with a single process the value itself."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()
