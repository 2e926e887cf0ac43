"""Reconstructions under different masks, against a plain loop over images; and what a record shows."""

import numpy as np
import pytest
import torch
from coloured_images import Coloured
from tiny_mae import DATA, hidden_pixels, normalised, predicted, tiny_mae

from dppmask.data.png import from_png
from dppmask.errors import UserError
from dppmask.evaluation import Reconstructions, evaluate
from dppmask.masks import BlockMask, DPPMask, RandomMask
from dppmask.models.checkpoint import load_model
from dppmask.rng import fold_in

SEED, BATCH = 3, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_mae(tmp_path_factory.mktemp("runs") / "mae")


@pytest.fixture(scope="module")
def record(run):
    protocol = Reconstructions(mask_ratio=0.5, batch_size=BATCH, num_shown=5)
    return evaluate(run, protocol, DATA, seed=SEED, device="cpu")


@pytest.fixture(scope="module")
def by_hand(run):
    """Label → for every image: truth, prediction and hidden pixels, and its masks."""
    model = load_model(run).eval()
    images = normalised(model)
    found = {}
    for label, strategy in {"RandomMask": RandomMask(), "DPPMask": DPPMask()}.items():
        pixels, hidden = [], []
        for index, batch in enumerate(images.split(BATCH)):
            with torch.no_grad():
                mask = strategy(model.context(batch), 8, generator=fold_in(SEED, index))
            pixels += list(predicted(model, batch, mask).numpy())
            hidden += [hidden_pixels(masked).numpy() for masked in mask.masked]
        found[label] = list(zip(pixels, hidden, strict=True))
    return found


def truth(index):
    sample = DATA.split("val")[index]
    return sample.image.numpy() / 255.0, sample.objects.numpy()


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5


def row(record, strategy, statistic):
    rows = record["tables"]["statistics"]
    return next(r for r in rows if (r["strategy"], r["statistic"]) == (strategy, statistic))


def errors_of_image(by_hand, index, guess=None):
    """Label → error of all hidden pixels, and of those of objects."""
    image, objects = truth(index)
    found = {}
    for label, images in by_hand.items():
        pixels, hidden = images[index]
        if guess == "visible_mean":
            pixels = np.stack([np.full((32, 32), channel[~hidden].mean()) for channel in image])
        if guess == "patch_mean":
            cells = image.reshape(3, 4, 8, 4, 8).mean((2, 4))
            pixels = np.kron(cells, np.ones((1, 8, 8)))
        squares = ((pixels - image) ** 2).mean(0)
        found[label] = squares[hidden].mean(), squares[hidden & objects.any(0)]
    return found


@pytest.mark.parametrize("guess", [None, "visible_mean", "patch_mean"])
def test_errors_are_means_over_the_hidden_pixels_of_each_image(record, by_hand, guess):
    images = [errors_of_image(by_hand, index, guess) for index in range(6)]
    both = [one for one in images if all(len(of_objects) for _, of_objects in one.values())]
    values = {
        statistic: {label: [one[label] for one in chosen] for label in by_hand}
        for statistic, chosen in {
            "error": [{label: error for label, (error, _) in one.items()} for one in images],
            "object_error": [{label: o.mean() for label, (_, o) in one.items()} for one in both],
        }.items()
    }
    for statistic, of_strategies in values.items():
        for label, errors in of_strategies.items():
            name = f"{label}/{statistic}"
            mean, deviation = mean_and_error(errors)
            if guess is not None:
                assert record["baselines"][guess][name] == pytest.approx(mean, rel=1e-5)
                continue
            assert record["metrics"][name] == pytest.approx(mean, rel=1e-5)
            differences = np.array(errors) - np.array(of_strategies["RandomMask"])
            found = row(record, label, statistic)
            assert found["images"] == len(errors)
            paired = mean_and_error(differences)
            assert found["minus_random"] == pytest.approx(paired[0], rel=1e-4, abs=1e-12)
            if statistic == "error":  # the same estimator; that of ratios differs where images are left out
                assert record["standard_errors"][name] == pytest.approx(deviation, rel=1e-4)
                assert found["minus_random_standard_error"] == pytest.approx(paired[1], rel=1e-4, abs=1e-12)


def test_objects_lost_are_counted(record, by_hand):
    for label, images in by_hand.items():
        shares = []
        for index, (_, hidden) in enumerate(images):
            shares += [(item & ~hidden).sum() / item.sum() for item in truth(index)[1] if item.any()]
        assert record["metrics"][f"{label}/objects_lost"] == pytest.approx(np.mean(np.array(shares) < 0.05))


def test_the_first_images_are_shown_as_they_are_and_as_they_are_filled_in(record, by_hand):
    shown = record["tables"]["shown"]
    assert [image["image"] for image in shown] == [0, 1, 2, 3, 4]  # beyond the first batch
    for index, image in enumerate(shown):
        original = DATA.split("val")[index].image
        assert torch.equal(from_png(image["original"]), original)
        assert image["grid"] == [4, 4]
        assert [one["strategy"] for one in image["made"]] == ["RandomMask", "DPPMask"]
        for made in image["made"]:
            pixels, hidden = by_hand[made["strategy"]][index]
            visible = torch.ones(16, dtype=torch.bool).index_fill(0, torch.tensor(made["visible"]), False)
            assert np.array_equal(hidden_pixels(visible).numpy(), hidden)
            rebuilt = from_png(made["reconstruction"]).numpy()
            assert np.array_equal(rebuilt[:, ~hidden], original.numpy()[:, ~hidden])
            assert np.abs(rebuilt[:, hidden] - 255 * pixels[:, hidden]).max() <= 0.51


def test_equal_masks_make_equal_pictures_and_no_difference(run):
    protocol = Reconstructions([DPPMask(1.0)], mask_ratio=0.5)
    record = evaluate(run, protocol, DATA, device="cpu")
    label = "DPPMask(purge_ratio=1.0)"
    for statistic in ("error", "object_error", "objects_lost"):
        found = row(record, label, statistic)
        assert found["minus_random"] == found["minus_random_standard_error"] == 0.0
    for image in record["tables"]["shown"]:
        random, dpp = image["made"]
        assert random["reconstruction"] == dpp["reconstruction"]


def test_who_else_takes_part_changes_no_error(run, record):
    alone = evaluate(
        run, Reconstructions([], mask_ratio=0.5, batch_size=BATCH, num_shown=0), DATA, seed=SEED, device="cpu"
    )
    assert alone["metrics"]["RandomMask/error"] == record["metrics"]["RandomMask/error"]
    assert alone["tables"]["shown"] == []


def test_images_without_objects_leave_out_what_needs_them(run):
    record = evaluate(run, Reconstructions(), Coloured(), device="cpu")
    assert set(record["metrics"]) == {"RandomMask/error", "DPPMask/error"}
    assert any("object_error and objects_lost are left out" in note for note in record["notes"])


def test_borrowed_statistics_are_said_to_be_borrowed(tmp_path, record):
    other = evaluate(tiny_mae(tmp_path / "run", norm_pix_loss=True), Reconstructions(), DATA, device="cpu")
    (note,) = set(other["notes"]) - set(record["notes"])
    assert note.startswith("this model was trained on normalised patches")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\), got 1.0"),
        ({"num_images": 1}, "num_images must be at least 2 for a standard error, got 1"),
        ({"num_shown": -1}, "num_shown must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        Reconstructions(**options)


def test_what_it_cannot_fill_in(run):
    with pytest.raises(UserError, match="Reconstructions needs the decoder too; pass a run folder"):
        evaluate("test_vit", Reconstructions(), DATA, image_size=32, device="cpu")
    with pytest.raises(UserError, match=r"image_size must be that of the run, \(32, 32\).*got \(64, 64\)"):
        evaluate(run, Reconstructions(), DATA, image_size=64, device="cpu")
    with pytest.raises(UserError, match=r"not BlockMask\(exact=False\); use exact=True"):
        evaluate(run, Reconstructions([BlockMask(exact=False)]), DATA, device="cpu")
