"""Fine-tuning on several labels, small enough to be done a few times."""

import pytest
import torch
from coloured_images import SIDE, Coloured, Lamps, tiny_encoder

from dppmask.data.augment import WholeImageTransform
from dppmask.data.transforms import normalise
from dppmask.errors import UserError
from dppmask.evaluation import MultiLabelFinetune, Subject, evaluate
from dppmask.evaluation.classifier import load_classifier
from dppmask.evaluation.features import eval_transform_of
from dppmask.evaluation.multilabel_finetune import mean_asymmetric_loss
from dppmask.evaluation.multilabel_metrics import multilabel_values
from dppmask.rng import fold_in, seeded

DATA = Lamps(train_size=60, val_size=30)
TINY = {
    "epochs": 6,
    "warmup_epochs": 1,
    "batch_size": 20,
    "micro_batch": 10,
    "base_lr": 0.05,
    "ema": 0.5,
    "rand_augment": None,
    "random_erasing": 0.0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def found(folder):
    protocol = MultiLabelFinetune(**TINY, out=str(folder / "work"))
    return protocol.run(Subject(tiny_encoder()), DATA)


def test_the_metrics_are_those_of_the_classifier_it_keeps(found, folder):
    classifier, val = load_classifier(folder / "work" / "classifier"), DATA.split("val")
    transform = eval_transform_of(classifier.encoder, val)
    images = torch.stack([transform(val[i].image)[0] for i in range(30)])
    labels = torch.stack([val[i].labels for i in range(30)])
    with torch.no_grad():
        expected = multilabel_values(classifier(images).sigmoid(), labels)
    best = found.metrics["mAP_best"]
    assert found.metrics == pytest.approx(expected | {"mAP_best": best}, abs=1e-6)
    assert best == max(row["mAP"] for row in found.tables["epochs"]) >= found.metrics["mAP"] - 1e-6
    assert found.metrics["mAP"] == pytest.approx(found.tables["epochs"][-1]["mAP"], abs=1e-6)


def test_what_is_plain_to_see_is_learned(found):
    assert found.metrics["mAP"] > 0.6 > found.baselines["chance"]["mAP"] + 0.2
    losses = [row["loss"] for row in found.tables["epochs"]]
    assert losses[-1] < 0.7 * losses[0]
    assert [row["label"] for row in found.tables["labels"]] == DATA.class_names
    assert list(found.baselines) == ["chance", "all_negative", "all_positive"]
    for values in found.baselines.values():
        assert values.keys() == found.metrics.keys() == found.standard_errors.keys()
    assert any("mAP_best" in note for note in found.notes)
    assert any("no image has never" in note for note in found.notes)


def test_finished_work_is_read_and_other_work_is_not_overwritten(found, folder):
    out = str(folder / "work")
    again = MultiLabelFinetune(**TINY, out=out, baselines=("all_negative",))
    assert again.run(Subject(tiny_encoder()), DATA).metrics == found.metrics
    with pytest.raises(UserError, match="choose another folder"):
        MultiLabelFinetune(**TINY | {"loss": "bce"}, out=out).run(Subject(tiny_encoder()), DATA)


def test_an_encoder_without_training_and_the_other_loss():
    options = TINY | {"epochs": 1, "loss": "bce", "thresholds": (0.5,), "baselines": ("random_encoder",)}
    record = evaluate(tiny_encoder(), MultiLabelFinetune(**options), DATA, device="cpu")
    assert record["baselines"]["random_encoder"].keys() == record["metrics"].keys()
    assert "of1_0.8" not in record["metrics"]
    assert any("nothing is kept" in note for note in record["notes"])


def test_an_average_that_has_seen_too_few_updates_is_noted(found):
    options = TINY | {"epochs": 2, "ema": 0.9}
    notes = MultiLabelFinetune(**options).run(Subject(tiny_encoder()), DATA).notes
    assert f"ema: {0.9**6:.0%} of the averaged weights are still the first ones" in " ".join(notes)
    assert "ema" not in " ".join(found.notes)


def test_the_loss_is_a_mean_over_images():
    logits = torch.randn(4, 3, generator=fold_in(91))
    targets = torch.rand(4, 3, generator=fold_in(92)) < 0.5
    expected = mean_asymmetric_loss(logits, targets)
    torch.testing.assert_close(mean_asymmetric_loss(logits.repeat(5, 1), targets.repeat(5, 1)), expected)


def test_training_images_are_whole():
    """Whatever its shape, an image is squeezed; flipped or not, nothing is cut off."""
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    image[:, :, :40] = 255  # left half
    transform = WholeImageTransform(SIDE, rand_augment=None, erasing=0.0)
    seen = set()
    for key in range(8):
        with seeded(93, key):
            pixels, crop = transform(image)
        flipped = bool(crop[4])
        seen.add(flipped)
        assert crop.tolist() == [0, 0, 40, 80, int(flipped)]
        half = pixels[:, :, SIDE // 2 :] if flipped else pixels[:, :, : SIDE // 2]
        white = normalise(torch.full((3, 1, 1), 255), transform.mean, transform.std)
        torch.testing.assert_close(half[..., 2:-2], white.expand(3, SIDE, SIDE // 2 - 4), atol=0.05, rtol=0.0)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "loss must be one of asl, bce, got 'mse'"),
        ({"thresholds": ()}, "thresholds must be"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"ema": 1.0}, r"ema must be in \(0, 1\)"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\)"),
        ({"pooling": "max"}, "pooling must be 'mean' or 'cls'"),
        ({"rand_augment": "strong"}, "rand_augment must be written as timm does"),
        ({"baselines": ("raw_pixels",)}, "baseline 'raw_pixels' does not exist"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        MultiLabelFinetune(**options)


def test_unsuitable_data():
    with pytest.raises(UserError, match="several labels, but these have one class each; use Finetune"):
        MultiLabelFinetune().run(Subject(tiny_encoder()), Coloured())
