import pytest
import torch
from coloured_images import Coloured, Lamps, Unlabelled, tiny_encoder
from sklearn.linear_model import LogisticRegression

from dppmask.errors import UserError
from dppmask.evaluation import LinearFast, Subject
from dppmask.evaluation.baselines import one_hot
from dppmask.evaluation.linear_fast import FittedHead, binary_cross_entropy, cross_entropy
from dppmask.rng import fold_in


def clouds(count, *, key=0, classes=3, width=5):
    """Overlapping Gaussian clouds, one per class, float64."""
    generator = fold_in(41, key)
    labels = torch.arange(count) % classes
    centres = torch.eye(width, dtype=torch.float64)[:classes]
    noise = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return 1.5 * centres[labels] + noise * torch.tensor([1.0, 5.0, 1.0, 0.1, 1.0]), labels


def fitted(features, targets, loss, *, l2):
    return FittedHead.zero(features, targets.shape[1]).fit(features, targets, loss, l2=l2, max_iterations=500)


@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_softmax_head_equals_sklearn(l2):
    features, labels = clouds(60)
    head = fitted(features, one_hot(labels, 3).double(), cross_entropy, l2=l2)
    standard = (features - head.mean) / head.scale
    reference = LogisticRegression(C=1 / (60 * l2), tol=1e-10, max_iter=5000).fit(standard, labels)
    torch.testing.assert_close(head.weight, torch.from_numpy(reference.coef_), atol=1e-4, rtol=1e-3)
    probabilities = torch.from_numpy(reference.predict_proba(standard))
    torch.testing.assert_close(head.scores(features).softmax(1), probabilities, atol=1e-4, rtol=1e-3)


def test_each_label_is_a_logistic_regression_of_its_own():
    features, labels = clouds(60)
    targets = torch.stack([labels == 0, labels > 0, labels == 2], 1).double()
    head = fitted(features, targets, binary_cross_entropy, l2=0.01)
    standard = (features - head.mean) / head.scale
    for label in range(3):
        reference = LogisticRegression(C=1 / (60 * 0.01), tol=1e-10, max_iter=5000)
        reference.fit(standard, targets[:, label])
        torch.testing.assert_close(
            head.weight[label], torch.from_numpy(reference.coef_[0]), atol=1e-4, rtol=1e-3
        )


def test_scale_and_shift_of_features_do_not_matter():
    features, labels = clouds(60)
    targets = one_hot(labels, 3).double()
    moved = features * torch.tensor([1.0, 1e-2, 1e3, 7.0, 1.0]) + 50.0
    one, two = fitted(features, targets, cross_entropy, l2=0.1), fitted(moved, targets, cross_entropy, l2=0.1)
    torch.testing.assert_close(one.scores(features), two.scores(moved), atol=1e-3, rtol=1e-3)


def test_the_penalty_with_the_least_held_out_loss_is_refitted_to_everything():
    features, labels = clouds(90)
    protocol = LinearFast(l2=(10.0, 0.1, 1e-6))
    head = protocol.probe(features, labels, 3, seed=0)
    best = min(head.penalties, key=lambda row: row["held_out_loss"])["l2"]
    expected = fitted(features, one_hot(labels, 3).double(), cross_entropy, l2=best)
    torch.testing.assert_close(head.weight, expected.weight, atol=1e-4, rtol=1e-3)
    assert {row["l2"] for row in head.penalties} == {10.0, 0.1, 1e-6}


def test_noise_wants_a_strong_penalty_and_signal_a_weak_one():
    features, labels = clouds(90)
    features[:, :3] += 3 * one_hot(labels, 3)
    features = torch.cat([features, torch.randn(90, 40, generator=fold_in(42))], 1)
    meaningless = torch.randint(3, (90,), generator=fold_in(43))
    for target, strongest in [(labels, False), (meaningless, True)]:
        penalties = LinearFast(l2=(100.0, 1e-2)).probe(features, target, 3, seed=0).penalties
        assert (penalties[0]["held_out_loss"] < penalties[1]["held_out_loss"]) is strongest


def test_a_constant_feature_and_a_missing_class_are_harmless():
    features, labels = clouds(30, classes=2)
    features[:, 4] = 7.0
    head = LinearFast().probe(features, labels, 5, seed=0)
    assert head.scores(features).isfinite().all()
    assert (head.scores(features).argmax(1) < 2).all()


def test_plain_classes_are_found_and_meaningless_ones_are_not():
    subject = Subject(tiny_encoder())
    found = LinearFast(pooling="mean", baselines=()).run(subject, Coloured(train_size=90))
    assert found.metrics["top1"] > 0.9
    control = Coloured(train_size=90, val_size=60, meaningless=True)
    top1 = LinearFast(pooling="mean", baselines=()).run(subject, control).metrics["top1"]
    assert abs(top1 - 1 / 3) < 3 * (2 / 9 / 60) ** 0.5


def test_several_labels_an_image():
    result = LinearFast(pooling="mean").run(Subject(tiny_encoder()), Lamps(train_size=120, val_size=60))
    assert 0.6 < result.metrics["mAP"] <= 0.75  # of four labels one never holds
    assert 0.0 < result.standard_errors["mAP"] < 0.1
    prevalence = torch.stack([Lamps(120, 60).split("val")[i].labels for i in range(60)]).double().mean(0)
    assert result.baselines["chance"]["mAP"] == pytest.approx(prevalence.mean().item())
    assert set(result.baselines) == {"chance", "raw_pixels", "random_encoder"}
    assert [row["label"] for row in result.tables["labels"]] == ["red", "green", "blue", "never"]
    assert "no image has never; labels without positives score 0" in result.notes[0]


def test_equal_calls_give_equal_results():
    def run():
        return LinearFast().run(Subject(tiny_encoder()), Coloured(), seed=5)

    assert run() == run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l2": ()}, "l2 must be"),
        ({"l2": (0.0,)}, "l2 must be"),
        ({"held_out": 1.0}, r"held_out must be in \(0, 1\)"),
        ({"max_iterations": 0}, "max_iterations must be at least 1"),
        ({"baselines": ("raw_pixel",)}, "did you mean raw_pixels"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        LinearFast(**options)


def test_unsuitable_data():
    with pytest.raises(UserError, match="one folder per class"):
        LinearFast().run(Subject(tiny_encoder()), Unlabelled())
    with pytest.raises(UserError, match="at least 2 training images, got 1"):
        LinearFast().run(Subject(tiny_encoder()), Coloured(train_size=1))
