"""Clusters against classes: what features, or a head with as many outputs as classes, sort without labels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from dppmask.data.base import ImageSource
from dppmask.errors import UserError
from dppmask.evaluation.agreement import chance_agreement, scored_agreement
from dppmask.evaluation.base import Compute, Part, Result, Subject
from dppmask.evaluation.baselines import BASELINES, CHANCE, pixel_thumbnails
from dppmask.evaluation.features import Pooling, eval_transform_of, frozen, part_batches
from dppmask.evaluation.metrics import Scored, errors, values
from dppmask.evaluation.probe import Probe, Tables
from dppmask.evaluation.task import Encoded
from dppmask.models.checkpoint import load_model
from dppmask.models.encoder import Encoder
from dppmask.rng import fold_seed

THUMBNAIL = 32  # longest side, in pixels, of the images that raw-pixel k-means sorts


class ClassHead(Protocol):
    """A method with a head on the class token."""

    encoder: Encoder

    def cls_logits(self, images: Tensor) -> Tensor:
        """The head's outputs for images ``[B, C, H, W]``, of the teacher where there is one: ``[B, K]``."""


class Clustering(Probe):
    """Agreement of clusters with classes on the validation part: NMI, ACC, ARI, by two kinds of clusters.

    ``kmeans_…`` is k-means on frozen features: the centres are found on the training part, without its
    labels, and every validation image joins the nearest.

    ``head_…`` is the largest output of the head on the class token (the teacher's, without centring), for
    runs of a method that has one. NMI and ARI take any number of outputs. ACC matches outputs and classes one
    to one, so it is left out unless there are as many of one as of the other.

    The metrics are those of :mod:`~dppmask.evaluation.agreement`. Chance assigns images at random, in the
    same number of clusters; raw pixels are images averaged to at most 32 × 32, sorted by k-means.

    Args:
        num_clusters: K of k-means; None = the number of classes.
        restarts: Starts of k-means, of which the one with the least distortion stays.
        normalise: Whether features are scaled to length 1 first, so that angles decide, as in k-NN.
        pooling: See :class:`~dppmask.evaluation.features.View`.
        blocks: See :class:`~dppmask.evaluation.features.View`.
        baselines: Which of "chance", "raw_pixels", "random_encoder" to report beside.

    Raises:
        UserError: If an argument is outside its range.

    Source: Zhou et al. (2022), *iBOT: Image BERT Pre-Training with Online Tokenizer*, unsupervised
        classification.
    """

    def __init__(
        self,
        num_clusters: int | None = None,
        restarts: int = 10,
        normalise: bool = True,
        pooling: Pooling = "cls",
        blocks: int = 1,
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        super().__init__(pooling=pooling, blocks=blocks, baselines=baselines)
        if num_clusters is not None and num_clusters < 2:
            raise UserError(f"num_clusters must be at least 2, got {num_clusters}")
        if restarts < 1:
            raise UserError(f"restarts must be at least 1, got {restarts}")
        self.num_clusters = num_clusters
        self.restarts = restarts
        self.normalise = normalise

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`; the seed is that of every random start."""
        result = super().run(subject, data, seed=seed)
        head = class_head(subject)
        return result if head is None else self._with_head(result, head, data, subject.compute, seed=seed)

    def assess(self, encoded: Encoded, *, seed: int) -> tuple[Scored, Tables]:
        """Agreement of k-means on features, and how many clusters are used."""
        return self._sort(encoded.train.values, encoded.val.values, encoded, seed=seed)

    def assess_pixels(self, encoded: Encoded, *, seed: int) -> Scored:
        """The same on thumbnails."""
        task = encoded.task
        train, val = (pixel_thumbnails(encoded, part, THUMBNAIL) for part in (task.train, task.val))
        return self._sort(train, val, encoded, seed=seed)[0]

    def assess_chance(self, encoded: Encoded, found: Scored, *, seed: int) -> dict[str, float]:
        """Random assignment to as many clusters."""
        return named("kmeans", chance_agreement(self._number(encoded), encoded.val_labels, seed=seed))

    def _sort(self, train: Tensor, val: Tensor, encoded: Encoded, *, seed: int) -> tuple[Scored, Tables]:
        if self.normalise:
            train, val = F.normalize(train, dim=1), F.normalize(val, dim=1)
        number = self._number(encoded)
        clusters = kmeans(train, val, number, restarts=self.restarts, seed=seed)
        scored = scored_agreement(clusters, encoded.val_labels, seed=seed)
        return named("kmeans", scored), {"clusters": [cluster_row("kmeans", clusters, number)]}

    def _number(self, encoded: Encoded) -> int:
        return self.num_clusters or encoded.task.num_classes

    def _with_head(
        self,
        result: Result,
        head: ClassHead,
        data: ImageSource,
        compute: Compute,
        *,
        seed: int,
    ) -> Result:
        """A result with the head's metrics beside those of k-means."""
        part = Part.open(data, "val")
        clusters, labels, width = head_clusters(head, part, compute)
        scored = scored_agreement(clusters, labels, seed=seed)
        chance = chance_agreement(width, labels, seed=seed)
        notes = list(result.notes)
        num_classes = len(part.require_classes(self.name))
        if width != num_classes:
            notes.append(f"head_acc is left out: the head has {width} outputs for {num_classes} classes")
            del scored["acc"], chance["acc"]
        baselines = dict(result.baselines)
        if CHANCE in baselines:
            baselines[CHANCE] = baselines[CHANCE] | named("head", chance)
        rows = [*result.tables["clusters"], cluster_row("head", clusters, width)]
        return replace(
            result,
            metrics=result.metrics | named("head", values(scored)),
            standard_errors=result.standard_errors | named("head", errors(scored)),
            baselines=baselines,
            tables=result.tables | {"clusters": rows},
            notes=notes,
        )


def kmeans(train: Tensor, val: Tensor, num_clusters: int, *, restarts: int, seed: int) -> Tensor:
    """The cluster of each validation image, int64 ``[m]``, with centres found on the training part.

    Args:
        train: ``[n, D]``.
        val: ``[m, D]``.
        num_clusters: K.
        restarts: Starts by k-means++; the one with the least distortion stays.
        seed: Of the starts.

    Raises:
        UserError: If there are fewer training images than clusters.
    """
    if len(train) < num_clusters:
        raise UserError(
            f"num_clusters must be at most the number of training images, {len(train)}, got {num_clusters}"
        )
    fitted = KMeans(num_clusters, n_init=restarts, random_state=fold_seed(seed) % 2**32).fit(train.numpy())
    return torch.from_numpy(fitted.predict(val.numpy())).long()


def class_head(subject: Subject) -> ClassHead | None:
    """The method of a run, if it has a head on the class token: a method ``cls_logits``."""
    if subject.run is None or not (subject.run / "checkpoints" / "last.ckpt").is_file():
        return None
    model = load_model(subject.run).to(subject.compute.device)
    return cast(ClassHead, model) if hasattr(model, "cls_logits") else None


def head_clusters(head: ClassHead, part: Part, compute: Compute) -> tuple[Tensor, Tensor, int]:
    """The largest output for every image, its label, both int64 ``[n]``, and the number of outputs."""
    clusters, labels, width = [], [], 0
    with frozen(cast(nn.Module, head), compute):
        for batch in part_batches(part, eval_transform_of(head.encoder, part.images), compute, "head"):
            logits = head.cls_logits(batch.images.to(compute.device))
            width = logits.shape[1]
            clusters.append(logits.argmax(dim=1).cpu())
            labels.append(cast(Tensor, batch.labels))
    return torch.cat(clusters), torch.cat(labels), width


def cluster_row(source: str, clusters: Tensor, number: int) -> dict[str, Any]:
    """How many clusters there are and how many have an image."""
    return {"source": source, "clusters": number, "used": len(clusters.unique())}


def named(source: str, found: dict[str, Any]) -> dict[str, Any]:
    """The same under ``source_name``."""
    return {f"{source}_{name}": value for name, value in found.items()}
