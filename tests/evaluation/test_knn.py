import numpy as np
import pytest
from coloured_images import Coloured, Lamps, Unlabelled, tiny_encoder
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from dppmask.errors import UserError
from dppmask.evaluation import KNN, Subject
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.features import View, frozen_features
from dppmask.specs import build, describe


def test_plain_classes_are_found_and_meaningless_ones_are_not():
    subject = Subject(tiny_encoder())
    found = KNN(k=(1, 5), pooling="mean").run(subject, Coloured(train_size=90))
    assert found.metrics["knn_top1_k5"] > 0.9
    control = KNN(k=(5,), pooling="mean").run(subject, Coloured(train_size=90, val_size=60, meaningless=True))
    assert abs(control.metrics["knn_top1_k5"] - 1 / 3) < 3 * (2 / 9 / 60) ** 0.5


def test_every_number_stands_beside_its_baselines():
    result = KNN(k=(1, 5)).run(Subject(tiny_encoder()), Coloured())
    assert set(result.baselines) == {"chance", "raw_pixels", "random_encoder"}
    for values in (result.metrics, result.standard_errors, *result.baselines.values()):
        assert set(values) == {"knn_top1_k1", "knn_top1_k5"}
    assert result.baselines["raw_pixels"]["knn_top1_k5"] > 0.9  # the colour is in the pixels
    assert set(KNN(k=(5,), baselines=("chance",)).run(Subject(tiny_encoder()), Coloured()).baselines) == {
        "chance"
    }


def test_several_labels_are_scored_by_the_mean_average_precision_of_their_votes():
    encoder, data = tiny_encoder(), Lamps(train_size=80, val_size=60)
    found = KNN(k=(7,), pooling="mean", temperature=0.1).run(Subject(encoder), data)
    train, val = (
        frozen_features(encoder, Part.open(data, s), View("mean"), Compute()) for s in ("train", "val")
    )
    near = NearestNeighbors(n_neighbors=7, metric="cosine").fit(train.values)
    distance, index = near.kneighbors(val.values)
    weights = np.exp((1 - distance) / 0.1)
    votes = np.einsum("qk,qkl->ql", weights / weights.sum(1, keepdims=True), train.labels.numpy()[index])
    known = [average_precision_score(val.labels[:, i], votes[:, i].round(6)) for i in range(3)]
    assert found.metrics == {"knn_mAP_k7": pytest.approx(sum(known) / 4, abs=1e-4)}  # the fourth never holds
    assert found.metrics["knn_mAP_k7"] > found.baselines["chance"]["knn_mAP_k7"] + 0.2
    assert set(found.baselines["raw_pixels"]) == set(found.standard_errors) == {"knn_mAP_k7"}


def test_the_seed_draws_the_random_encoder_and_nothing_else():
    def run(seed):
        protocol = KNN(k=(3,), baselines=("random_encoder",))
        return protocol.run(Subject(tiny_encoder()), Coloured(meaningless=True, val_size=60), seed=seed)

    one, same, other = run(0), run(0), run(1)
    assert one == same
    assert one.metrics == other.metrics
    assert one.baselines != other.baselines


def test_kept_arguments_rebuild_it():
    protocol = KNN(k=(3, 7), temperature=0.1, pooling="mean", baselines=("chance",))
    assert describe(build(describe(protocol))) == describe(protocol)


@pytest.mark.parametrize(
    ("protocol", "subject", "data", "message"),
    [
        (KNN(), Subject(tiny_encoder()), Unlabelled(), "one folder per class"),
        (KNN(), Subject(), Coloured(), "KNN evaluates an encoder"),
        (KNN(k=(61,)), Subject(tiny_encoder()), Coloured(), "at most the number of training images, 60"),
    ],
)
def test_unsuitable_data(protocol, subject, data, message):
    with pytest.raises(UserError, match=message):
        protocol.run(subject, data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": ()}, "k must be one or several positive numbers"),
        ({"k": (0,)}, "k must be one or several positive numbers"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"baselines": ("random",)}, "baseline 'random' does not exist"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        KNN(**options)
