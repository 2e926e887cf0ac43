"""iBOT's linear probe: many learning rates at once, the best chosen on held-out training images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dppmask.errors import UserError
from dppmask.evaluation.augmented import augmented_features, batches_per_epoch
from dppmask.evaluation.baselines import BASELINES
from dppmask.evaluation.features import Features, Pooling
from dppmask.evaluation.metrics import Scored, classification_metrics
from dppmask.evaluation.probe import Probe, Tables
from dppmask.evaluation.task import Encoded
from dppmask.rng import fold_in
from dppmask.training.schedule import scaled_learning_rate

BASE_LRS = tuple(float(f"{digit}e{power}") for power in range(-4, 1) for digit in range(1, 10))

_HEAD_WEIGHTS, _HELD_OUT = 12, 13  # keep these streams apart from others of the same seed
_CHUNK = 4096  # held-out images scored at a time


class LinearSweep(Probe):
    """The linear probe of iBOT: the class tokens of the last blocks side by side, and a sweep of the rate.

    For every learning rate a linear layer is trained by SGD with momentum 0.9 on images that are cropped at
    random and flipped, all of them on the same crops. The rate is ``base_lr · batch_size / 256`` and falls
    from epoch to epoch on half a cosine to 0.

    The best rate is chosen on held-out *training* images: each layer has a twin that never learns from them,
    and the rate whose twin is most often right there wins. The layer of that rate, which learnt from all
    training images, is then tested, and the validation part is looked at once. iBOT's own script reports the
    best rate and epoch on the validation part, which is optimistic. Its crops are bilinear, ours bicubic.

    iBOT reads ViT-S by ``blocks=4, pooling="cls"`` and larger models by ``blocks=1, pooling="cls_mean"``.

    Args:
        epochs: Length of the training; iBOT: 100.
        batch_size: Images per update; iBOT: 1024.
        base_lrs: Learning rates to choose from, for 256 images per update; iBOT's 45 by default.
        held_out: Share of the training images the rate is chosen on.
        min_scale: Smallest area of a random crop, as a share of the image.
        pooling: See :class:`~dppmask.evaluation.features.View`.
        blocks: See :class:`~dppmask.evaluation.features.View`.
        baselines: Which of "chance", "raw_pixels" (a k-NN), "random_encoder" to report beside; the last one
            makes a second sweep.

    Raises:
        UserError: If an argument is outside its range.

    Source: Zhou et al. (2022), *iBOT: Image BERT Pre-Training with Online Tokenizer*, linear probing.
    """

    def __init__(
        self,
        epochs: int = 100,
        batch_size: int = 256,
        base_lrs: Sequence[float] = BASE_LRS,
        held_out: float = 0.1,
        min_scale: float = 0.08,
        pooling: Pooling = "cls",
        blocks: int = 4,
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        super().__init__(pooling=pooling, blocks=blocks, baselines=baselines)
        for name, value in {"epochs": epochs, "batch_size": batch_size}.items():
            if value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if not base_lrs or min(base_lrs) <= 0.0:
            raise UserError(f"base_lrs must be one or several positive numbers, got {tuple(base_lrs)}")
        if not 0.0 < held_out < 1.0:
            raise UserError(
                f"held_out must be in (0, 1), got {held_out}; 0.1 keeps a tenth of the training images"
            )
        if not 0.0 < min_scale <= 1.0:
            raise UserError(f"min_scale must be in (0, 1], got {min_scale}; iBOT uses 0.08")
        self.epochs = epochs
        self.batch_size = batch_size
        self.base_lrs = tuple(base_lrs)
        self.held_out = held_out
        self.min_scale = min_scale

    def assess(self, encoded: Encoded, *, seed: int) -> tuple[Scored, Tables]:
        """Train all layers, choose one, test it.

        The seed decides the first weights, what is held out, the order and the crops, and the random encoder.
        """
        choosing = hold_out(encoded.train, self.held_out, seed=seed)
        choosers, layers = self.train(encoded, choosing.sample_ids, seed=seed).unbind()
        shares = choosers.accuracies(choosing)
        best = max(range(len(shares)), key=shares.__getitem__)  # of equals the smallest rate given first
        scores = layers.scores(encoded.val.values.to(encoded.task.compute.device), best).cpu()
        rows = [
            {"base_lr": base_lr, "held_out_top1": share, "chosen": index == best}
            for index, (base_lr, share) in enumerate(zip(self.base_lrs, shares, strict=True))
        ]
        return classification_metrics(scores, encoded.val_labels), {"rates": rows}

    def train(self, encoded: Encoded, held_out: Tensor, *, seed: int) -> "Layers":
        """Both twins of every layer, trained: first those that never learn from ``held_out`` (ids), ``[m]``.

        Raises:
            UserError: If the training part has fewer images than one batch.
        """
        steps_per_epoch, task = batches_per_epoch(encoded, self.batch_size), encoded.task
        width, device = self.view.width(encoded.encoder), task.compute.device
        layers = Layers.start(2, len(self.base_lrs), width, task.num_classes, seed=seed, device=device)
        rates = scaled_learning_rate(1.0, self.batch_size) * torch.tensor(self.base_lrs, device=device)
        optimizer = torch.optim.SGD([layers.weight, layers.bias], lr=1.0, momentum=0.9)
        is_held_out = torch.zeros(len(task.train.images), dtype=torch.bool)
        is_held_out[held_out] = True
        batches = augmented_features(
            encoded,
            epochs=self.epochs,
            batch_size=self.batch_size,
            min_scale=self.min_scale,
            seed=seed,
            title="linear sweep",
        )
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = half_cosine(step // steps_per_epoch, self.epochs)
            counts = torch.stack([~is_held_out[batch.sample_ids], torch.ones(self.batch_size).bool()])
            update(layers, optimizer, batch, counts.to(device), rates)
        return layers


@dataclass(frozen=True, eq=False)
class Layers:
    """Linear layers side by side.

    Attributes:
        weight: ``[..., H, C, D]``.
        bias: ``[..., H, C]``.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def start(
        cls, twins: int, number: int, width: int, num_classes: int, *, seed: int, device: str
    ) -> "Layers":
        """``twins`` times ``number`` layers, all with the same first weights, of deviation 0.01; biases 0."""
        first = 0.01 * torch.randn(num_classes, width, generator=fold_in(seed, _HEAD_WEIGHTS))
        weight = first.expand(twins, number, -1, -1).clone().to(device).requires_grad_()
        return cls(weight, torch.zeros(twins, number, num_classes, device=device, requires_grad=True))

    def unbind(self) -> "list[Layers]":
        """The layers along the first axis, without gradient."""
        pairs = zip(self.weight.detach(), self.bias.detach(), strict=True)
        return [Layers(weight, bias) for weight, bias in pairs]

    def all_scores(self, features: Tensor) -> Tensor:
        """``[n, D]`` → ``[n, ..., H, C]``."""
        flat = F.linear(features, self.weight.flatten(0, -2), self.bias.flatten())
        return flat.unflatten(1, self.bias.shape)

    def scores(self, features: Tensor, index: int) -> Tensor:
        """Those of one layer of ``[H, C, D]``: ``[n, D]`` → ``[n, C]``."""
        return F.linear(features, self.weight[index], self.bias[index])

    def accuracies(self, features: Features) -> list[float]:
        """Share of right answers of each layer of ``[H, C, D]``; 0 where training has diverged."""
        right = torch.zeros(len(self.weight), dtype=torch.float64)
        labels = features.require_labels()
        for rows in torch.arange(len(labels)).split(_CHUNK):
            scores = self.all_scores(features.values[rows].to(self.weight.device))  # [n, H, C]
            finite = scores.isfinite().all(2)
            answers = scores.argmax(2) == labels[rows].to(scores.device)[:, None]
            right += (answers & finite).sum(0).cpu()
        return (right / len(labels)).tolist()


def update(
    layers: Layers, optimizer: torch.optim.Optimizer, batch: Features, counts: Tensor, rates: Tensor
) -> None:
    """One step of every layer on the mean cross-entropy of the images that count for it.

    Args:
        layers: ``[T, H, C, D]``.
        optimizer: SGD with momentum, whose rate is common to all layers.
        batch: Features ``[B, D]`` with class indices.
        counts: bool ``[T, B]``.
        rates: ``[H]``, factors of the common rate. Momentum is linear in the gradient, so scaling the loss by
            them is the same as a rate of its own for each layer.
    """
    scores = layers.all_scores(batch.values)  # [B, T, H, C]
    labels = batch.require_labels()[:, None, None].expand(scores.shape[:3])
    losses = F.cross_entropy(scores.flatten(0, 2), labels.flatten(), reduction="none").view_as(labels)
    shares = counts.T / counts.sum(1).clamp(min=1)  # [B, T]
    optimizer.zero_grad()
    (losses * shares[:, :, None] * rates).sum().backward()
    optimizer.step()


def hold_out(features: Features, share: float, *, seed: int) -> Features:
    """A random share of images, at least one, and not all.

    Raises:
        UserError: If there are fewer than two images.
    """
    count = len(features.values)
    if count < 2:
        raise UserError(f"a linear probe needs at least 2 training images, got {count}")
    number = min(max(round(share * count), 1), count - 1)
    rows = torch.randperm(count, generator=fold_in(seed, _HELD_OUT))[:number]
    return Features(features.values[rows], features.sample_ids[rows], features.require_labels()[rows])


def half_cosine(epoch: int, epochs: int) -> float:
    """From 1 in epoch 0 to 0 after the last."""
    return 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
