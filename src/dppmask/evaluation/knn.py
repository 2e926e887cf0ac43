"""k-NN on frozen features: no training, so it says what the features already know."""

from collections.abc import Callable, Sequence

from torch import Tensor

from dppmask.data.base import ImageSource
from dppmask.evaluation.base import Part, Protocol, Result, Subject
from dppmask.evaluation.baselines import (
    BASELINES,
    CHANCE,
    RANDOM_ENCODER,
    RAW_PIXELS,
    chance_accuracy,
    check_baselines,
    one_hot,
    pixel_neighbours,
    random_encoder,
)
from dppmask.evaluation.features import Features, Pooling, View, frozen_features
from dppmask.evaluation.metrics import accuracy, errors, values
from dppmask.evaluation.neighbours import Neighbours, check_ks, find_neighbours


class KNN(Protocol):
    """Weighted k-nearest-neighbour classification by cosine similarity, as iBOT and DINO do it.

    Every validation image asks its k nearest training images; one of similarity s votes for its class with
    weight ``exp(s / temperature)``. The metric ``knn_top1_k20`` is the share of images whose class wins at k
    = 20.

    Args:
        k: One or several numbers of neighbours.
        temperature: Of the votes.
        pooling: See :class:`~dppmask.evaluation.features.View`.
        blocks: See :class:`~dppmask.evaluation.features.View`.
        baselines: Which of "chance", "raw_pixels", "random_encoder" to report beside.

    Raises:
        UserError: If an argument is outside its range.

    Source: Zhou et al. (2022), *iBOT: Image BERT Pre-Training with Online Tokenizer*; Wu et al. (2018).
    """

    def __init__(
        self,
        k: Sequence[int] = (10, 20),
        temperature: float = 0.07,
        pooling: Pooling = "cls",
        blocks: int = 1,
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        check_ks(k, temperature)
        check_baselines(baselines)
        self.k = tuple(k)
        self.temperature = temperature
        self.pooling = pooling
        self.blocks = blocks
        self.view = View(pooling, blocks)
        self.baselines = tuple(baselines)

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`; the seed is that of the random encoder."""
        encoder, compute = subject.require_encoder(self.name), subject.compute
        train_part, val_part = Part.open(data, "train"), Part.open(data, "val")
        num_classes = len(train_part.require_single_label(self.name, instead="LinearFast"))
        train = frozen_features(encoder, train_part, self.view, compute)
        val = frozen_features(encoder, val_part, self.view, compute)
        train_labels, val_labels = train.require_labels(), val.require_labels()
        targets = one_hot(train_labels, num_classes)

        def score(neighbours: Neighbours) -> dict[str, tuple[float, float]]:
            return self.accuracies(neighbours, targets, val_labels)

        def fresh_neighbours() -> Neighbours:
            fresh = random_encoder(encoder, seed=seed)
            bank = frozen_features(fresh, train_part, self.view, compute, title="random encoder")
            queries = frozen_features(fresh, val_part, self.view, compute, title="random encoder")
            return self._neighbours(bank, queries)

        found = score(self._neighbours(train, val))
        most = max(self.k)
        beside: dict[str, Callable[[], dict[str, float]]] = {
            CHANCE: lambda: dict.fromkeys(found, chance_accuracy(train_labels, val_labels)),
            RAW_PIXELS: lambda: values(
                score(pixel_neighbours(train_part, val_part, encoder, compute, k=most))
            ),
            RANDOM_ENCODER: lambda: values(score(fresh_neighbours())),
        }
        baselines = {name: beside[name]() for name in self.baselines}
        notes = train.notes(train_part) + val.notes(val_part)
        return Result(
            self.name, values(found), standard_errors=errors(found), baselines=baselines, notes=notes
        )

    def accuracies(
        self, neighbours: Neighbours, targets: Tensor, labels: Tensor
    ) -> dict[str, tuple[float, float]]:
        """Accuracy and its standard error for every k.

        Args:
            neighbours: Of the validation images, at least as many as the largest k.
            targets: One-hot ``[M, C]`` of the training images.
            labels: int64 ``[Q]`` of the validation images.
        """
        found = {}
        for k in self.k:
            votes = neighbours.votes(targets, k=k, temperature=self.temperature)
            found[f"knn_top1_k{k}"] = accuracy(votes.argmax(dim=1), labels)
        return found

    def _neighbours(self, train: Features, val: Features) -> Neighbours:
        return find_neighbours(val.values, [train.values], k=max(self.k))
