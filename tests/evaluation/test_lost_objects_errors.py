"""Errors of objects that masks keep or lose, against a plain loop; which examples are shown."""

import numpy as np
import pytest
import torch
from coloured_images import Coloured
from tiny_mae import DATA, hidden_pixels, normalised, predicted, tiny_mae

from dppmask.data.png import from_png
from dppmask.errors import UserError
from dppmask.evaluation import LostObjects, evaluate
from dppmask.masks import BlockMask, DPPMask, RandomMask
from dppmask.models.checkpoint import load_model
from dppmask.rng import fold_in

SEED, BATCH, MASKS = 1, 4, 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_mae(tmp_path_factory.mktemp("runs") / "mae")


@pytest.fixture(scope="module")
def record(run):
    protocol = LostObjects(num_masks=MASKS, batch_size=BATCH, num_shown=3)
    return evaluate(run, protocol, DATA, seed=SEED, device="cpu")


@pytest.fixture(scope="module")
def by_hand(run):
    """For every image a list over masks: prediction and hidden pixels."""
    model = load_model(run).eval()
    found = [[] for _ in range(6)]
    for index, batch in enumerate(normalised(model).split(BATCH)):
        for number in range(MASKS):
            mask = RandomMask()(model.context(batch), 12, generator=fold_in(SEED, index, number))
            pixels = predicted(model, batch, mask).numpy()
            for row, masked in enumerate(mask.masked):
                found[BATCH * index + row].append((pixels[row], hidden_pixels(masked).numpy()))
    return found


def objects_of(index):
    sample = DATA.split("val")[index]
    return sample.image.numpy() / 255.0, [item for item in sample.objects.numpy() if item.any()]


def trials(by_hand, *, elsewhere=False):
    """(image, object) → [(visible share, error or None)] over masks."""
    found = {}
    for index, masks in enumerate(by_hand):
        image, objects = objects_of(index)
        for number, item in enumerate(objects):
            for pixels, hidden in masks:
                squares = ((pixels - image) ** 2).mean(0)
                scored = hidden & (~item if elsewhere else item)
                error = squares[scored].mean() if scored.any() else None
                share = (item & ~hidden).sum() / item.sum()
                found.setdefault((index, number), []).append((share, error))
    return found


@pytest.mark.parametrize("elsewhere", [False, True], ids=["of the object", "elsewhere"])
def test_errors_are_split_by_whether_the_object_is_lost(record, by_hand, elsewhere):
    found = trials(by_hand, elsewhere=elsewhere)
    kept = [
        error for masks in found.values() for share, error in masks if share >= 0.05 and error is not None
    ]
    lost = [error for masks in found.values() for share, error in masks if share < 0.05]
    differences = []
    for masks in found.values():
        of_kept = [error for share, error in masks if share >= 0.05 and error is not None]
        of_lost = [error for share, error in masks if share < 0.05]
        if of_kept and of_lost:
            differences.append(np.mean(of_lost) - np.mean(of_kept))
    assert len(differences) > 5  # else there is nothing to compare
    values = record["baselines"]["elsewhere"] if elsewhere else record["metrics"]
    assert values["kept_error"] == pytest.approx(np.mean(kept), rel=1e-4)
    assert values["lost_error"] == pytest.approx(np.mean(lost), rel=1e-4)
    assert values["lost_minus_kept"] == pytest.approx(np.mean(differences), rel=1e-3)
    rows = {r["statistic"]: r for r in record["tables"]["statistics"] if r["predicted_by"] == "network"}
    if not elsewhere:
        assert values["lost"] == pytest.approx(len(lost) / sum(map(len, found.values())))
        assert [rows[name]["count"] for name in ("kept_error", "lost_error", "lost_minus_kept")] == [
            len(kept),
            len(lost),
            len(differences),
        ]


def test_standard_errors_take_an_image_as_a_cluster(record, by_hand):
    found = trials(by_hand)
    sums, counts = np.zeros(6), np.zeros(6)
    for (index, _), masks in found.items():
        lost = [error for share, error in masks if share < 0.05]
        sums[index] += sum(lost)
        counts[index] += len(lost)
    residuals = sums - sums.sum() / counts.sum() * counts
    expected = (residuals**2).sum() * 6 / 5
    assert record["standard_errors"]["lost_error"] == pytest.approx(expected**0.5 / counts.sum(), rel=1e-4)


def test_examples_are_the_first_that_qualify_and_the_largest_of_their_image(record, by_hand):
    found, expected = trials(by_hand), []
    for index in range(6):
        sizes = {}
        for number, item in enumerate(objects_of(index)[1]):
            shares = [share for share, _ in found[index, number]]
            if any(share < 0.05 for share in shares) and any(0.05 <= share < 1 for share in shares):
                sizes[number] = item.sum()
        if sizes:
            expected.append((index, max(sizes, key=sizes.get)))
    shown = record["tables"]["shown"]
    assert len(shown) == 3
    assert [(row["image"], row["object"]) for row in shown] == expected[:3]


def test_an_example_shows_the_first_mask_of_each_kind(record, by_hand):
    found = trials(by_hand)
    for row in record["tables"]["shown"]:
        index, number = row["image"], row["object"]
        image, objects = objects_of(index)
        assert np.array_equal(from_png(row["original"]).numpy(), np.rint(255 * image))
        assert np.array_equal(from_png(row["object_pixels"])[0].numpy(), 255 * objects[number])
        masks = found[index, number]
        first = {
            "kept": next(m for m, (share, _) in enumerate(masks) if 0.05 <= share < 1),
            "lost": next(m for m, (share, _) in enumerate(masks) if share < 0.05),
        }
        for kind, chosen in first.items():
            made, (pixels, hidden) = row[kind], by_hand[index][chosen]
            share, error = masks[chosen]
            assert (made["visible_share"], made["error"]) == pytest.approx((share, error), rel=1e-4)
            masked = torch.ones(16, dtype=torch.bool).index_fill(0, torch.tensor(made["visible"]), False)
            assert np.array_equal(hidden_pixels(masked).numpy(), hidden)
            rebuilt = from_png(made["reconstruction"]).numpy()
            assert np.array_equal(rebuilt[:, ~hidden], np.rint(255 * image)[:, ~hidden])
            assert np.abs(rebuilt[:, hidden] - 255 * pixels[:, hidden]).max() <= 0.51


def test_any_strategy_can_hide(run):
    record = evaluate(run, LostObjects(DPPMask(), num_images=4), DATA, device="cpu")
    assert record["tables"]["strategies"][0]["strategy"] == "DPPMask"
    assert 0.0 < record["metrics"]["lost"] < 1.0


def test_too_few_masks_of_both_kinds_are_said_to_be_missing(run):
    record = evaluate(run, LostObjects(mask_ratio=0.05, num_masks=2, num_images=2), DATA, device="cpu")
    assert record["metrics"]["lost"] < 0.5
    assert "lost_minus_kept" not in record["metrics"]
    assert record["tables"]["shown"] == []
    assert any("lost_minus_kept is left out; take more images or masks" in note for note in record["notes"])


def test_what_it_cannot_score(run):
    with pytest.raises(UserError, match="LostObjects needs to know where objects are"):
        evaluate(run, LostObjects(), Coloured(), device="cpu")
    with pytest.raises(UserError, match="LostObjects needs the decoder too; pass a run folder"):
        evaluate("test_vit", LostObjects(), DATA, image_size=32, device="cpu")
    with pytest.raises(UserError, match=r"not BlockMask\(exact=False\); use exact=True"):
        evaluate(run, LostObjects(BlockMask(exact=False)), DATA, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_masks": 1}, "num_masks must be at least 2, to keep an object and to lose it, got 1"),
        ({"num_images": 1}, "num_images must be at least 2 for a standard error, got 1"),
        ({"num_shown": -1}, "num_shown must be at least 0, got -1"),
        ({"mask_ratio": 0.0}, r"mask_ratio must be in \(0, 1\), got 0.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        LostObjects(**options)
