import numpy as np
import pytest
import torch
from coloured_images import Coloured, Lamps, Unlabelled, tiny_encoder
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from dppmask import specs
from dppmask.data.clevr import CLEVR
from dppmask.data.coco import COCO
from dppmask.data.scenes import Scenes
from dppmask.data.scenes_export import export_scenes
from dppmask.errors import UserError
from dppmask.evaluation import MultiLabel, Subject
from dppmask.evaluation.base import Part
from dppmask.evaluation.features import View, frozen_features
from dppmask.evaluation.multilabel_baselines import constant_metrics

LAMPS = Lamps(train_size=120, val_size=60)


@pytest.fixture(scope="module")
def found():
    return MultiLabel(pooling="mean").run(Subject(tiny_encoder()), LAMPS)


def truth(part="val"):
    images = LAMPS.split(part)
    return torch.stack([images[i].labels for i in range(len(images))])


def test_metrics_are_those_of_a_logistic_regression_per_label():
    """With one penalty, label by label in scikit-learn, scored by scikit-learn."""
    subject, l2 = Subject(tiny_encoder()), 1e-2
    found = MultiLabel(l2=(l2,), pooling="mean", baselines=(), max_iterations=1000).run(subject, LAMPS)
    train, val = (
        frozen_features(subject.encoder, Part.open(LAMPS, part), View("mean"), subject.compute).values
        for part in ("train", "val")
    )
    mean, scale = train.mean(0), (train.var(0, correction=0) + 1e-6).sqrt()
    labelled, held_out = truth("train").numpy(), truth().numpy()
    model = LogisticRegression(C=1 / (120 * l2), tol=1e-10, max_iter=5000)
    columns = [
        model.fit((train - mean) / scale, labelled[:, label]).predict_proba((val - mean) / scale)[:, 1]
        for label in range(3)
    ]
    for label, column in enumerate(columns):
        row = found.tables["labels"][label]
        expected = average_precision_score(held_out[:, label], column)
        assert row["average_precision"] == pytest.approx(expected, abs=0.005)
        assert row["f1_0.5"] == pytest.approx(f1_score(held_out[:, label], column > 0.5), abs=0.005)
    predicted = np.stack(columns, axis=1) > 0.8
    expected = accuracy_score(held_out[:, :3].ravel(), predicted.ravel())
    assert found.metrics["accuracy_0.8"] == pytest.approx(1 - 0.75 * (1 - expected), abs=0.005)


def test_what_is_plain_to_see_is_found(found):
    assert 0.6 < found.metrics["mAP"] <= 0.75  # of four labels one never holds
    assert found.metrics["of1_0.5"] > 0.8
    assert [row["label"] for row in found.tables["labels"]] == ["red", "green", "blue", "never"]
    assert "no image has never; labels without positives score 0" in found.notes[0]
    assert found.standard_errors.keys() == found.metrics.keys()
    assert 0.0 < found.standard_errors["mAP"] < 0.1
    assert all(error < 0.15 for error in found.standard_errors.values())


def test_every_baseline_has_the_same_metrics(found):
    names = ["chance", "all_negative", "all_positive", "raw_pixels", "random_encoder"]
    assert list(found.baselines) == names
    for values in found.baselines.values():
        assert values.keys() == found.metrics.keys()


def test_answers_without_a_look_at_the_images(found):
    share = truth().double().mean().item()
    negative, positive = found.baselines["all_negative"], found.baselines["all_positive"]
    assert negative["accuracy_0.5"] == pytest.approx(1 - share)
    assert negative["of1_0.5"] == negative["cf1_mean_0.8"] == 0.0
    assert positive["accuracy_0.5"] == pytest.approx(share)
    assert positive["of1_0.8"] == pytest.approx(2 * share / (1 + share))
    for values in (negative, positive, found.baselines["chance"]):
        assert values["mAP"] == pytest.approx(share)


def test_chance_is_the_share_of_each_label():
    """At a threshold between two shares, the labels that are more frequent are predicted for all."""
    shares = truth().double().mean(0)
    threshold = shares[:3].sort().values[1:].mean().item()
    found = constant_metrics("chance", truth(), thresholds=(threshold,))
    predicted = (shares > threshold).expand(60, 4)
    assert predicted[0].sum() == 1
    assert found[f"accuracy_{threshold:g}"] == pytest.approx((predicted == truth()).double().mean().item())


def test_the_asymmetric_loss_raises_probabilities():
    """Of labels it is unsure of it predicts more, without ordering images worse."""
    thresholds, options = (0.5, 0.8), {"l2": (1.0,), "baselines": (), "pooling": "mean"}
    bce, asl = (
        MultiLabel(loss, thresholds, **options).run(Subject(tiny_encoder()), LAMPS).metrics
        for loss in ("bce", "asl")
    )
    assert asl["or_0.8"] > bce["or_0.8"]
    assert asl["op_0.5"] < bce["op_0.5"]
    assert asl["mAP"] > bce["mAP"] - 0.05


def test_scenes_have_24_labels():
    data = Scenes(size=32, train_size=40, val_size=20)
    encoder = tiny_encoder(image_size=32)
    result = MultiLabel(l2=(0.1,), baselines=("all_negative",)).run(Subject(encoder), data)
    assert [row["label"] for row in result.tables["labels"]] == data.class_names
    assert len(data.class_names) == 24
    assert 0.7 < result.baselines["all_negative"]["accuracy_0.5"] < 0.82  # of 3 to 10 objects


@pytest.mark.parametrize(("layout", "source"), [("clevr", CLEVR), ("coco", COCO)])
def test_files_in_official_layouts(tmp_path, layout, source):
    scenes = Scenes(size=(32, 40), train_size=40, val_size=20)
    export_scenes(scenes, tmp_path / layout, layout)
    protocol = MultiLabel(l2=(0.1,), baselines=("all_positive",))
    result = protocol.run(Subject(tiny_encoder()), source(str(tmp_path / layout)))
    present = torch.stack([scenes.split("val")[i].labels for i in range(20)])
    rows = result.tables["labels"]
    assert [row["label"] for row in rows] == scenes.class_names
    assert [row["positives"] for row in rows] == present.sum(0).tolist()
    assert result.baselines["all_positive"]["op_0.5"] == pytest.approx(present.double().mean().item())


def test_equal_calls_give_equal_results():
    def run():
        options = {"l2": (0.1, 0.01), "baselines": ("random_encoder",), "max_iterations": 20}
        return MultiLabel("asl", **options).run(Subject(tiny_encoder()), LAMPS, seed=5)

    assert run() == run()


def test_round_trip_through_plain_data():
    protocol = MultiLabel(loss="asl", thresholds=(0.3,), baselines=("all_positive",))
    assert vars(specs.build(specs.describe(protocol))) == vars(protocol)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "loss must be one of bce, asl, got 'mse'"),
        ({"thresholds": (1.0,)}, r"thresholds must be one or several numbers in \(0, 1\)"),
        ({"l2": ()}, "l2 must be"),
        ({"held_out": 1.0}, r"held_out must be in \(0, 1\)"),
        ({"baselines": ("all_negatives",)}, "did you mean all_negative"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        MultiLabel(**options)


def test_unsuitable_data():
    with pytest.raises(UserError, match="one folder per class"):
        MultiLabel().run(Subject(tiny_encoder()), Unlabelled())
    with pytest.raises(UserError, match="several labels, but these have one class each; use LinearFast"):
        MultiLabel().run(Subject(tiny_encoder()), Coloured())
