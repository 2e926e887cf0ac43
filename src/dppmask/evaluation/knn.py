"""k-NN on frozen features: no training, so it says what the features already know."""

from collections.abc import Sequence

from dppmask.evaluation.baselines import BASELINES, one_hot, pixel_neighbours
from dppmask.evaluation.features import Pooling
from dppmask.evaluation.metrics import Scored, classification_metrics
from dppmask.evaluation.neighbours import Neighbours, check_ks, find_neighbours
from dppmask.evaluation.probe import Probe, Tables
from dppmask.evaluation.task import Encoded

BANK_PIECE = 65536  # training features compared at a time


class KNN(Probe):
    """Weighted k-nearest-neighbour classification by cosine similarity, as iBOT and DINO do it.

    Every validation image asks its k nearest training images; one of similarity s votes for its class, or
    for each of its labels, with weight ``exp(s / temperature)``. The metric ``knn_top1_k20`` is the share of
    images whose class wins at k = 20; where images carry several labels, ``knn_mAP_k20`` is the mean average
    precision of the votes.

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

    several_labels = True

    def __init__(
        self,
        k: Sequence[int] = (10, 20),
        temperature: float = 0.07,
        pooling: Pooling = "cls",
        blocks: int = 1,
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        super().__init__(pooling=pooling, blocks=blocks, baselines=baselines)
        check_ks(k, temperature)
        self.k = tuple(k)
        self.temperature = temperature

    def assess(self, encoded: Encoded, *, seed: int) -> tuple[Scored, Tables]:
        """The metric for every k; the seed is that of the random encoder and of resamples."""
        device = encoded.task.compute.device
        bank = (piece.to(device) for piece in encoded.train.values.split(BANK_PIECE))
        neighbours = find_neighbours(encoded.val.values.to(device), bank, k=max(self.k))
        return self._score(neighbours, encoded, seed=seed), {}

    def assess_pixels(self, encoded: Encoded, *, seed: int) -> Scored:
        """The same vote among neighbours in pixels."""
        return self._score(pixel_neighbours(encoded, k=max(self.k)), encoded, seed=seed)

    def _score(self, neighbours: Neighbours, encoded: Encoded, *, seed: int) -> Scored:
        targets = one_hot(encoded.train_labels, encoded.task.num_classes)
        found: Scored = {}
        for k in self.k:
            votes = neighbours.votes(targets, k=k, temperature=self.temperature)
            scored = classification_metrics(votes, encoded.val_labels, seed=seed)
            found |= {f"knn_{name}_k{k}": value for name, value in scored.items()}
        return found
