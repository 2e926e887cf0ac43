"""MAE's linear probe: LARS on a batch-normalised head, images augmented anew in every epoch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from dppmask.errors import UserError
from dppmask.evaluation.augmented import augmented_features, batches_per_epoch
from dppmask.evaluation.baselines import BASELINES
from dppmask.evaluation.features import Pooling
from dppmask.evaluation.lars import LARS
from dppmask.evaluation.metrics import Scored, classification_metrics
from dppmask.evaluation.probe import Probe, Tables
from dppmask.evaluation.task import Encoded
from dppmask.rng import seeded
from dppmask.training.schedule import scaled_learning_rate, warmup_cosine

_HEAD_WEIGHTS = 11  # keeps the stream of the head's first weights apart from others of the same seed


class Linear(Probe):
    """The linear probe of MAE: frozen encoder, batch normalisation without affine part, linear layer, LARS.

    The learning rate is ``base_lr · batch_size / 256`` after a linear warm-up, then half a cosine to 0, set
    at every step. Training images are cropped at random and flipped. The accuracy reported is that of the
    last epoch on the validation part, which is looked at once; MAE's own script reports the best epoch. Crops
    are torchvision's, which tries ten times for one that fits; MAE's script tries once and clamps.

    LARS moves the weights by a small share of their length per step, so a short training hardly moves them:
    below some ten thousand images use :class:`~dppmask.evaluation.linear_fast.LinearFast`, or a larger
    ``base_lr``.

    Args:
        epochs: Length of the training; MAE: 90.
        warmup_epochs: Of these, with a rising learning rate.
        batch_size: Images per update of the head; MAE: 16384.
        base_lr: Learning rate for 256 images per update.
        min_scale: Smallest area of a random crop, as a share of the image.
        pooling: See :class:`~dppmask.evaluation.features.View`.
        blocks: See :class:`~dppmask.evaluation.features.View`.
        baselines: Which of "chance", "raw_pixels" (a k-NN), "random_encoder" to report beside; the last one
            trains a second head.

    Raises:
        UserError: If an argument is outside its range.

    Source: He et al. (2022), *Masked Autoencoders Are Scalable Vision Learners*, appendix A.1.
    """

    def __init__(
        self,
        epochs: int = 90,
        warmup_epochs: int = 10,
        batch_size: int = 256,
        base_lr: float = 0.1,
        min_scale: float = 0.08,
        pooling: Pooling = "cls",
        blocks: int = 1,
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        super().__init__(pooling=pooling, blocks=blocks, baselines=baselines)
        if not 0 <= warmup_epochs < epochs:
            raise UserError(f"warmup_epochs must be in [0, epochs), got {warmup_epochs} of {epochs}")
        if batch_size < 2:
            raise UserError(f"batch_size must be at least 2 for batch normalisation, got {batch_size}")
        if base_lr <= 0.0:
            raise UserError(f"base_lr must be positive, got {base_lr}; MAE uses 0.1")
        if not 0.0 < min_scale <= 1.0:
            raise UserError(f"min_scale must be in (0, 1], got {min_scale}; MAE uses 0.08")
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.batch_size = batch_size
        self.base_lr = base_lr
        self.min_scale = min_scale

    def assess(self, encoded: Encoded, *, seed: int) -> tuple[Scored, Tables]:
        """Train a head and test it.

        The seed decides the first weights, the order and augmentation of the images, and the random encoder.
        """
        head, rows = self.train_head(encoded, seed=seed)
        scores = scores_of(head, encoded.val.values)
        return classification_metrics(scores, encoded.val_labels), {"epochs": rows}

    def train_head(self, encoded: Encoded, *, seed: int) -> tuple[nn.Sequential, list[dict[str, float]]]:
        """The trained head, and a row per epoch: mean loss, and the learning rate of its last step.

        Raises:
            UserError: If the training part has fewer images than one batch.
        """
        task = encoded.task
        steps_per_epoch = batches_per_epoch(encoded, self.batch_size)
        with seeded(seed, _HEAD_WEIGHTS):
            head = linear_head(self.view.width(encoded.encoder), task.num_classes).to(task.compute.device)
        lengths = {
            "warmup_steps": self.warmup_epochs * steps_per_epoch,
            "total_steps": self.epochs * steps_per_epoch,
        }
        peak = scaled_learning_rate(self.base_lr, self.batch_size)
        optimizer = LARS(head.parameters(), lr=peak)
        losses: list[Tensor] = []
        rows: list[dict[str, float]] = []
        batches = augmented_features(
            encoded,
            epochs=self.epochs,
            batch_size=self.batch_size,
            min_scale=self.min_scale,
            seed=seed,
            title="linear probe",
        )
        for step, batch in enumerate(batches):
            lr = peak * warmup_cosine(step, **lengths)
            losses.append(update(head, optimizer, batch.values, batch.require_labels(), lr=lr))
            if (step + 1) % steps_per_epoch == 0:
                rows.append({"epoch": len(rows), "loss": torch.stack(losses).mean().item(), "lr": lr})
                losses = []
        return head.eval(), rows


def linear_head(width: int, num_classes: int) -> nn.Sequential:
    """Batch normalisation without affine part and a linear layer, as MAE initialises it."""
    linear = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), linear)


def update(
    head: nn.Sequential, optimizer: Optimizer, features: Tensor, labels: Tensor, *, lr: float
) -> Tensor:
    """One optimiser step at this learning rate; returns the cross-entropy before it."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = F.cross_entropy(head(features), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def scores_of(head: nn.Sequential, features: Tensor) -> Tensor:
    """Scores ``[n, C]`` of a trained head, on the CPU."""
    return head.cpu()(features)
