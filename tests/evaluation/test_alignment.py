from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from coloured_images import Coloured, Unlabelled, tiny_encoder

from dppmask.data.base import ImageSource, Sample
from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation import Alignment, Compute, Subject
from dppmask.evaluation.baselines import random_encoder
from dppmask.evaluation.features import eval_transform_of
from dppmask.masks import AttMask, BlockMask, DPPMask, KDPPMask, Mask, MaskContext, MaskStrategy, RandomMask
from dppmask.rng import fold_in
from dppmask.specs import build, describe

SMALL = {"num_images": 6, "batch_size": 6, "num_masks": 3, "num_clouds": 0, "random_encoder": False}


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=32, train_size=2, val_size=12)


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(image_size=32, patch_size=4)


def naive(encoder, scenes, strategy, num_masked):
    """Alignment and diversity of six images, one image and mask at a time; and which masks lose an object."""
    part = scenes.split("val")
    images = torch.stack([eval_transform_of(encoder, part)(part[i].image)[0] for i in range(6)])
    masks = []
    for number in range(3):
        context = MaskContext(images, encoder.grid, tokens=encoder.embed(images))
        masks.append(strategy(context, num_masked, generator=fold_in(0, 0, number)))
    alignment, diversity, lost = [], [], []
    for i in range(6):
        image = images[i : i + 1]
        whole = encoder.encode(image).prefix[0, 0].double()
        alone = [Mask.from_bool(mask.masked[i : i + 1]) for mask in masks]
        seen = [encoder.encode(image, mask=mask).prefix[0, 0].double() for mask in alone]
        alignment.append([(z - whole).norm().item() for z in seen])
        diversity.append(sum((a - b).norm().item() for a, b in combinations(seen, 2)) / 3)
        objects = eval_transform_of(encoder, part).geometry(part[i].objects)
        lost.append([loses(objects, mask.masked[0]) for mask in alone])
    return torch.tensor(alignment).mT, torch.tensor(diversity), torch.tensor(lost).mT


def loses(objects, masked):
    visible = (~masked).reshape(8, 1, 8, 1).expand(8, 4, 8, 4).reshape(32, 32)
    return any(o.any().item() and (o & visible).sum() < 0.05 * o.sum() for o in objects)


@torch.no_grad()
def test_numbers_are_those_of_a_loop_over_images_and_masks(encoder, scenes):
    protocol = Alignment([DPPMask(0.3)], mask_ratios=[0.75], **SMALL)
    result = protocol.run(Subject(encoder), scenes)
    for strategy, label in ((RandomMask(), "RandomMask@0.75"), (DPPMask(0.3), "DPPMask@0.75")):
        alignment, diversity, lost = naive(encoder, scenes, strategy, 48)
        for name, values in {
            "alignment_l2": alignment.mean(0),
            "diversity_l2": diversity,
            "lost": lost.double().mean(0),
        }.items():
            expected = values.mean().item(), values.std().item() / 6**0.5
            found = result.metrics[f"{label}/{name}"], result.standard_errors[f"{label}/{name}"]
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
        both = lost.any(0) & (~lost).any(0)
        differences = [
            (values[is_lost].mean() - values[~is_lost].mean()).item()
            for values, is_lost in zip(alignment.mT[both], lost.mT[both], strict=True)
        ]
        for name, values in {
            "kept_l2": alignment[~lost],
            "lost_l2": alignment[lost],
        }.items():
            assert len(values) > 0
            assert result.metrics[f"{label}/{name}"] == pytest.approx(values.mean().item(), rel=1e-3)
        if label.startswith("Random"):  # DPP masks lose too few objects for a difference within images
            found = result.metrics[f"{label}/lost_minus_kept_l2"]
            assert found == pytest.approx(torch.tensor(differences).mean().item(), rel=1e-3)


@dataclass
class Corners(ImageSource):
    """Noise, with one object in the first patches of even images and in the last ones of odd images."""

    def split(self, name):
        return self

    def __len__(self):
        return 8

    def __getitem__(self, index):
        image = torch.randint(256, (3, 32, 32), generator=fold_in(3, index), dtype=torch.uint8)
        objects = torch.zeros(1, 32, 32, dtype=torch.bool)
        objects[0, :4] = True  # the first row of patches
        return Sample(image, objects=objects if index % 2 == 0 else objects.flip(1), sample_id=index)


class HideFirst(MaskStrategy):
    """The first patches are hidden, whatever the image."""

    is_random = False

    def choose(self, features, noise, num_masked):
        return Mask.from_scores(-torch.arange(noise.shape[1]).float().expand_as(noise), num_masked)


def test_masks_that_hide_the_object_are_marked(encoder):
    protocol = Alignment([HideFirst()], mask_ratios=[0.25], num_clouds=2, cloud_size=3, random_encoder=False)
    result = protocol.run(Subject(encoder), Corners())
    assert result.metrics["HideFirst@0.25/lost"] == 0.5
    rows = {(row["strategy"], row["statistic"]): row for row in result.tables["statistics"]}
    random = result.metrics["RandomMask@0.25/lost"]
    assert rows["HideFirst", "lost"]["minus_random"] == pytest.approx(0.5 - random)
    assert "HideFirst@0.25/kept_l2" in result.metrics
    assert "HideFirst@0.25/lost_minus_kept_l2" not in result.metrics, "no image has both"
    flags = {
        (row["image"], row["strategy"]): row["lost"]
        for row in result.tables["clouds"]
        if row["strategy"] == "HideFirst"
    }
    assert flags == {(0, "HideFirst"): [True] * 3, (1, "HideFirst"): [False] * 3}


def test_equal_masks_have_no_diversity(encoder):
    result = Alignment([HideFirst()], num_clouds=0, random_encoder=False).run(Subject(encoder), Corners())
    for unit in ("l2", "unit_l2", "cosine", "relative"):
        assert result.metrics[f"HideFirst@0.75/diversity_{unit}"] == 0.0
        assert result.metrics[f"HideFirst@0.75/alignment_{unit}"] > 0.0
        assert result.metrics[f"RandomMask@0.75/diversity_{unit}"] > 0.0


def test_what_hides_more_moves_an_image_farther(encoder, scenes):
    protocol = Alignment([], mask_ratios=[0.01, 0.3, 0.6, 0.9], **SMALL)
    metrics = protocol.run(Subject(encoder), scenes).metrics
    for unit in ("l2", "unit_l2", "cosine", "relative"):
        values = [metrics[f"RandomMask@{ratio}/alignment_{unit}"] for ratio in protocol.mask_ratios]
        assert values == sorted(values)
        assert values[0] < 0.25 * values[-1]


def test_units_hang_together(encoder, scenes):
    metrics = Alignment([DPPMask()], **SMALL).run(Subject(encoder), scenes).metrics
    scale = metrics["between_images/l2"]
    for statistic in ("RandomMask@0.75/alignment", "DPPMask@0.75/diversity"):
        assert metrics[f"{statistic}_relative"] == pytest.approx(metrics[f"{statistic}_l2"] / scale)
        assert metrics[f"{statistic}_unit_l2"] ** 2 / 2 <= metrics[f"{statistic}_cosine"], "Jensen"


def test_distances_between_images_are_those_of_all_pairs(encoder, scenes):
    result = Alignment([], **SMALL).run(Subject(encoder), scenes)
    part = scenes.split("val")
    images = torch.stack([eval_transform_of(encoder, part)(part[i].image)[0] for i in range(6)])
    with torch.no_grad():
        whole = encoder.encode(images).prefix[:, 0].double()
    pairs = [(whole[i] - whole[j]).norm().item() for i, j in combinations(range(6), 2)]
    assert result.metrics["between_images/l2"] == pytest.approx(sum(pairs) / len(pairs))
    cosine = [1 - torch.cosine_similarity(whole[i], whole[j], dim=0) for i, j in combinations(range(6), 2)]
    assert result.metrics["between_images/cosine"] == pytest.approx(sum(cosine).item() / len(pairs))
    without_one = [
        sum((whole[i] - whole[j]).norm().item() for i, j in combinations(rest, 2)) / 10
        for rest in combinations(range(6), 5)
    ]
    jackknife = torch.tensor(without_one).var(correction=0).mul(5).sqrt().item()
    assert result.standard_errors["between_images/l2"] == pytest.approx(jackknife, rel=0.35)


def test_differences_to_random_are_paired(encoder, scenes):
    options = SMALL | {"num_images": 12}
    result = Alignment([DPPMask(0.0), DPPMask(1.0)], **options).run(Subject(encoder), scenes)
    rows = {(r["strategy"], r["statistic"]): r for r in result.tables["statistics"]}
    same = rows["DPPMask(purge_ratio=1.0)", "alignment_l2"]
    assert same["minus_random"] == same["minus_random_standard_error"] == 0.0
    other, random = rows["DPPMask(purge_ratio=0.0)", "alignment_l2"], rows["RandomMask", "alignment_l2"]
    assert other["minus_random"] == pytest.approx(other["value"] - random["value"])
    assert other["images"] == 12


def test_the_untrained_encoder_sees_the_same_masks(encoder, scenes):
    options = SMALL | {"random_encoder": True}
    result = Alignment([DPPMask(source="pixels")], **options).run(Subject(encoder), scenes, seed=4)
    beside = result.baselines["random_encoder"]
    alone = Alignment([DPPMask(source="pixels")], **SMALL).run(
        Subject(random_encoder(encoder, seed=4)), scenes, seed=4
    )
    assert beside == pytest.approx(alone.metrics)
    assert beside["RandomMask@0.75/lost"] == result.metrics["RandomMask@0.75/lost"]
    assert beside["RandomMask@0.75/alignment_l2"] != result.metrics["RandomMask@0.75/alignment_l2"]


def test_equal_calls_are_equal_and_seeds_differ(encoder, scenes):
    before = torch.get_rng_state()

    def run(seed, **compute):
        protocol = Alignment([DPPMask()], **SMALL | {"num_clouds": 1, "cloud_size": 4})
        return protocol.run(Subject(encoder, compute=Compute(**compute)), scenes, seed=seed)

    assert run(0) == run(0)
    assert run(0).metrics == run(0, batch_size=5).metrics
    assert run(0).metrics != run(1).metrics
    assert torch.equal(torch.get_rng_state(), before)


def test_strategies_of_every_kind_take_part(encoder, scenes):
    masks = [DPPMask(source="teacher"), KDPPMask(), BlockMask(), AttMask("high")]
    metrics = Alignment(masks, **SMALL).run(Subject(encoder), scenes).metrics
    assert metrics["AttMask@0.75/diversity_l2"] == 0.0
    for label in ("DPPMask(source=teacher)", "KDPPMask", "BlockMask"):
        assert metrics[f"{label}@0.75/diversity_l2"] > 0.0


def test_clouds_lie_in_the_principal_plane_around_the_whole_image(encoder, scenes):
    protocol = Alignment([DPPMask()], mask_ratios=[0.5, 0.75], **SMALL | {"num_clouds": 2, "cloud_size": 5})
    result = protocol.run(Subject(encoder), scenes)
    rows = result.tables["clouds"]
    assert [(row["image"], row["mask_ratio"], row["strategy"]) for row in rows] == [
        (image, mask_ratio, label)
        for image in (0, 1)
        for mask_ratio in (0.5, 0.75)
        for label in ("RandomMask", "DPPMask")
    ]
    image = eval_transform_of(encoder, scenes)(scenes.split("val")[1].image)[0].expand(5, -1, -1, -1)
    points = [torch.zeros(1, encoder.embed_dim)]
    with torch.no_grad():
        for strategy in (RandomMask(), DPPMask()):
            context = MaskContext(image, encoder.grid, tokens=encoder.embed(image))
            mask = strategy(context, 48, generator=fold_in(0, 11, 1, 0))
            points.append((encoder.encode(image, mask=mask).prefix - encoder.encode(image).prefix)[:, 0])
    points = torch.cat(points).double()
    centred = points - points.mean(0)
    values, vectors = torch.linalg.eigh(centred.mT @ centred)
    plane = points @ vectors[:, -2:].flip(1)
    found = torch.tensor([[0.0, *rows[6][name], *rows[7][name]] for name in ("x", "y")]).double().mT
    torch.testing.assert_close(found.abs(), plane.abs(), rtol=1e-3, atol=1e-4)
    assert rows[6]["explained"] == pytest.approx((values[-2:].sum() / values.sum()).item())


def test_sources_without_objects_leave_out_what_needs_them():
    result = Alignment([], num_clouds=1, cloud_size=2).run(Subject(tiny_encoder()), Unlabelled())
    assert "does not say where objects are" in result.notes[0]
    assert not any("lost" in name or "kept" in name for name in result.metrics)
    assert result.tables["clouds"][0]["lost"] is None


def test_an_encoder_that_sees_no_difference_has_no_relative_distances():
    encoder = tiny_encoder()
    with torch.no_grad():
        for parameter in encoder.backbone.norm.parameters():
            parameter.zero_()
    result = Alignment([], num_images=4, random_encoder=False).run(Subject(encoder), Coloured())
    assert result.metrics["RandomMask@0.75/alignment_l2"] == 0.0
    assert not any("relative" in name for name in result.metrics)
    assert any("same vector" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratios": []}, "mask_ratios must be at least one"),
        ({"mask_ratios": [0.5, 0.5]}, r"mask_ratios must all differ, got \[0.5, 0.5\]"),
        ({"mask_ratios": [1.0]}, r"mask_ratio must be in \(0, 1\), got 1.0"),
        ({"num_masks": 1}, "num_masks must be at least 2 to compare masks of one image, got 1"),
        ({"num_images": 1}, "num_images must be at least 2 for a standard error, got 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_clouds": 65}, r"num_clouds must be in \[0, 64\], the batch_size, got 65"),
        ({"cloud_size": 1}, "cloud_size must be at least 2 to span a plane, got 1"),
        ({"pooling": "max"}, "pooling must be one of cls, mean, cls_mean, got 'max'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        Alignment(**options)


def test_what_cannot_be_measured(scenes):
    with pytest.raises(UserError, match="Alignment evaluates an encoder"):
        Alignment().run(Subject(), scenes)
    with pytest.raises(UserError, match=r"Alignment compares equal numbers of patches, not BlockMask"):
        Alignment([BlockMask(exact=False)]).run(Subject(tiny_encoder()), scenes)
    with pytest.raises(UserError, match="at least 2 images"):
        Alignment().run(Subject(tiny_encoder()), Coloured(val_size=1))


def test_options_are_kept_under_their_names():
    spec = describe(Alignment([DPPMask(0.1)], mask_ratios=[0.5, 0.9]))
    assert spec["init_args"]["mask_ratios"] == [0.5, 0.9]
    assert describe(build(spec)) == spec
