"""Scenes are a function of (seed, split, index), and what they say about their pixels is true."""

import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity

from dppmask import specs
from dppmask.data import scenes
from dppmask.data.module import eval_batches
from dppmask.data.scene_layout import COLOURS, MATERIALS, MIN_VISIBLE_PROBES, SHAPES, SIZES, visible_probes
from dppmask.data.scene_objects import GAMMA, render_foreground
from dppmask.data.scene_textures import FAMILIES, render_background
from dppmask.data.scenes import COLOUR_GROUPS, Scenes, compose
from dppmask.errors import UserError
from dppmask.rng import fold_in

TASKS = ["multi", "single"]


def images(source: Scenes, indices: range | list[int]) -> Tensor:
    return torch.stack([source[index].image for index in indices])


@pytest.mark.parametrize("task", TASKS)
def test_same_image_in_any_order(task):
    forwards = images(Scenes(task=task, size=32), range(6))
    backwards = images(Scenes(task=task, size=32), [5, 4, 3, 2, 1, 0]).flip(0)
    again = images(Scenes(task=task, size=32, train_size=50), range(6))
    assert torch.equal(forwards, backwards)
    assert torch.equal(forwards, again)
    assert len(forwards.flatten(1).unique(dim=0)) == 6


def test_seeds_splits_and_indices_differ():
    sources = [Scenes(size=32), Scenes(size=32).split("val"), Scenes(size=32, seed=1)]
    pictures = torch.cat([images(source, range(3)) for source in sources])
    assert len(pictures.flatten(1).unique(dim=0)) == 9


def test_no_global_generator_is_touched():
    state = torch.get_rng_state()
    Scenes(size=32)[0]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [32, 64, (48, 80), (80, 48)])
def test_sample_fits_its_promise(task, size):
    height, width = (size, size) if isinstance(size, int) else size
    source = Scenes(size=size, task=task)
    for index in range(8):
        sample = source[index]
        assert sample.image.shape == (3, height, width)
        assert sample.image.dtype == torch.uint8
        assert sample.objects.dtype == torch.bool
        assert sample.objects.shape == (len(source.scene(index).objects), height, width)
        assert sample.sample_id == index
        assert (sample.label is None) == (task == "multi")
        assert (sample.labels is None) == (task == "single")


@pytest.mark.parametrize("size", [32, 64])
def test_masks_are_disjoint_and_every_object_is_visible(size):
    source = Scenes(size=size)
    for index in range(60):
        objects = source[index].objects
        assert objects.sum(0).max() == 1
        assert objects.flatten(1).any(1).all()


def test_masks_are_where_the_objects_are():
    """With every other object removed, one covers at least its mask."""
    source = Scenes(size=64)
    for index in range(10):
        scene, sample = source.scene(index), source[index]
        foreground = render_foreground(scene, 64, 64)
        covered = foreground.alpha > 0.5
        assert (sample.objects.any(0) != covered).sum() < 0.2 * covered.sum()
        for item, mask in zip(scene.objects, sample.objects, strict=True):
            alone = render_foreground(type(scene)((item,), scene.tilt, scene.light), 64, 64)
            assert (alone.owners[mask] == 1).all()
            assert mask.sum() >= 0.1 * (alone.owners == 1).sum()


def test_layouts_keep_a_part_of_every_object_in_sight():
    source = Scenes()
    for index in range(300):
        scene = source.scene(index)
        assert visible_probes(scene.objects, scene.tilt).min() >= MIN_VISIBLE_PROBES
        assert [item.y for item in scene.objects] == sorted((item.y for item in scene.objects), reverse=True)


def test_labels_agree_with_attributes():
    source = Scenes(size=32)
    for index in range(20):
        kinds = {f"{item.colour} {item.shape}" for item in source.scene(index).objects}
        labels = source[index].labels
        assert {name for name, there in zip(source.class_names, labels, strict=True) if there} == kinds
    assert source.class_names[8 * 1 + 2] == "blue sphere"
    single = Scenes(size=32, task="single")
    for index in range(20):
        (item,) = single.scene(index).objects
        group = next(name for name, colours in COLOUR_GROUPS.items() if item.colour in colours)
        assert single.class_names[single[index].label] == f"{group} {item.shape}"


def test_colours_agree_with_pixels():
    """The mean colour of a dull object points to its own entry of the palette, in light intensities."""
    palette = (torch.tensor(list(COLOURS.values())) / 255) ** GAMMA
    source, right = Scenes(size=64), []
    for index in range(30):
        sample = source[index]
        for item, mask in zip(source.scene(index).objects, sample.objects, strict=True):
            if item.material == "rubber" and mask.sum() > 30:
                mean = ((sample.image[:, mask] / 255) ** GAMMA).mean(1)
                right.append(list(COLOURS)[cosine_similarity(mean, palette, dim=1).argmax()] == item.colour)
    assert len(right) > 30
    assert sum(right) / len(right) > 0.9


def test_shapes_agree_with_masks():
    """Alone and whole, a sphere fills its bounding box as a disc does, and no cylinder does."""
    source, filled = Scenes(size=96, task="single"), {shape: [] for shape in SHAPES}
    for index in range(60):
        (mask,) = source[index].objects
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        filled[source.scene(index).objects[0].shape].append((mask.sum() / (rows * columns)).item())
    assert all(abs(share - torch.pi / 4) < 0.03 for share in filled["sphere"])
    assert all(share > 0.84 for share in filled["cylinder"])


def test_everything_occurs():
    source = Scenes()
    scenes_drawn = [source.scene(index) for index in range(250)]
    items = [item for scene in scenes_drawn for item in scene.objects]
    assert {len(scene.objects) for scene in scenes_drawn} == set(range(3, 11))
    kinds = Counter((item.shape, item.colour) for item in items)
    assert len(kinds) == 24
    assert min(kinds.values()) > 0.5 * max(kinds.values()) - 10
    for name, values in (("material", MATERIALS), ("size", SIZES)):
        assert min(Counter(getattr(item, name) for item in items)[value] for value in values) > 0.4 * len(
            items
        )
    single = Scenes(task="single")
    labels = Counter(single.present(index)[0] for index in range(450))
    assert sorted(labels) == list(range(9))
    assert min(labels.values()) > 25
    assert {source.background_family(index) for index in range(120)} == set(FAMILIES)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_background_tells_the_class_as_often_as_promised(correlation):
    source, count = Scenes(task="single", background_correlation=correlation), 900
    families = list(FAMILIES)
    told = sum(source.background_family(i) == families[source.present(i)[0]] for i in range(count)) / count
    expected = correlation + (1 - correlation) / 9
    assert told == pytest.approx(expected, abs=4 * (expected * (1 - expected) / count) ** 0.5 + 1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_same_scene_at_any_size(task):
    small, large = Scenes(size=48, task=task), Scenes(size=144, task=task)
    for index in range(5):
        assert small.scene(index) == large.scene(index)
        shrunk = avg_pool2d(large[index].image.float(), 3)
        assert (shrunk - small[index].image).abs().mean() < 4
        other = small[index + 1].image
        assert (shrunk - other).abs().mean() > 12


def test_foreground_and_background_are_separate():
    source = Scenes(size=48, task="single")
    foreground = source.foreground(0)
    on_black = compose(foreground, torch.zeros(3, 48, 48))
    assert (on_black[:, foreground.alpha == 0] == 0).all()
    assert torch.equal(compose(foreground, source.background(0)), source[0].image)
    mixed = compose(foreground, source.background(1))
    inside = foreground.alpha == 1
    assert torch.equal(mixed[:, inside], source[0].image[:, inside])
    assert not torch.equal(mixed, source[0].image)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_texture_is_textured_and_within_range(family):
    floors = torch.stack([render_background(family, fold_in(0, number), 40, 56) for number in range(4)])
    assert floors.shape == (4, 3, 40, 56)
    assert floors.isfinite().all()
    assert floors.min() >= 0
    assert floors.max() <= 1
    assert floors.flatten(2).std(2).min() > 0.005
    assert len(floors.flatten(1).unique(dim=0)) == 4


def test_metal_shines_and_rubber_does_not():
    source, brightest = Scenes(size=64, task="single"), {material: [] for material in MATERIALS}
    for index in range(60):
        (item,), (mask,) = source.scene(index).objects, source[index].objects
        if item.shape == "sphere":
            brightest[item.material].append(source[index].image[:, mask].amin(0).max().item())
    assert min(brightest["metal"]) > 150
    assert max(brightest["rubber"]) < 150


def test_returned_pixels_are_the_callers_own():
    source = Scenes(size=32)
    before = source[0].image.clone()
    source[0].image.zero_()
    assert torch.equal(source[0].image, before)


def count_renderings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    rendered: list[int] = []
    original = Scenes._render

    def render(self: Scenes, index: int) -> tuple[Tensor, Tensor]:
        rendered.append(index)
        return original(self, index)

    monkeypatch.setattr(Scenes, "_render", render)
    return rendered


def test_memory_keeps_what_fits(monkeypatch):
    rendered = count_renderings(monkeypatch)
    monkeypatch.setattr(scenes, "MEMORY_CACHE_BYTES", 2 * 4 * 32 * 32)
    source = Scenes(size=32)
    first = images(source, range(4))
    assert torch.equal(images(source, range(4)), first)
    assert rendered == [0, 1, 2, 3, 2, 3]


@pytest.mark.parametrize("task", TASKS)
def test_cache_file_holds_the_same_samples(tmp_path, monkeypatch, task):
    options = {"size": 32, "task": task, "train_size": 5, "val_size": 3}
    expected = Scenes(**options)
    Scenes(**options, cache_dir=str(tmp_path / "new")).split("train")
    rendered = count_renderings(monkeypatch)
    cached = Scenes(**options, cache_dir=str(tmp_path / "new")).split("train")
    for index in range(5):
        ours, theirs = cached[index], expected.split("train")[index]
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.objects, theirs.objects)
        assert ours.label == theirs.label
    assert rendered == list(range(5))  # all of them by the source without a cache
    assert len(list((tmp_path / "new").iterdir())) == 1
    assert torch.equal(Scenes(**options, cache_dir=str(tmp_path / "new")).split("val")[2].image,
                       expected.split("val")[2].image)  # fmt: skip


def test_cache_files_of_different_data_differ(tmp_path):
    base = {"size": 32, "train_size": 2, "val_size": 2, "cache_dir": str(tmp_path)}
    for options in ({}, {"seed": 1}, {"task": "single"}, {"task": "single", "background_correlation": 0.25},
                    {"size": (32, 40)}, {"train_size": 3}):  # fmt: skip
        Scenes(**base | options).split("train")
    Scenes(**base).split("val")
    assert len(list(tmp_path.iterdir())) == 7


def test_interrupted_cache_leaves_no_file(tmp_path, monkeypatch):
    def stop(self: Scenes, index: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Scenes, "_render", stop)
    with pytest.raises(KeyboardInterrupt):
        Scenes(size=32, train_size=2, cache_dir=str(tmp_path)).split("train")
    assert list(tmp_path.iterdir()) == []


def test_damaged_cache_names_the_file(tmp_path):
    source = Scenes(size=32, train_size=2, cache_dir=str(tmp_path))
    source.split("train")
    (path,) = Path(tmp_path).iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="delete it"):
        source.split("train")


@pytest.mark.parametrize("cached", [False, True])
def test_workers_see_the_same_scenes(tmp_path, cached):
    source = Scenes(size=32, train_size=8, cache_dir=str(tmp_path) if cached else None).split("train")
    plain = [(image.float(), torch.zeros(5)) for image in images(source, range(8))]

    def as_it_is(image: Tensor) -> tuple[Tensor, Tensor]:
        return image.float(), torch.zeros(5)

    for workers in (0, 2):
        batches = list(eval_batches(source, as_it_is, batch_size=3, num_workers=workers))
        assert torch.equal(torch.cat([b.images for b in batches]), torch.stack([image for image, _ in plain]))


def test_pickle_leaves_rendered_images_behind():
    source = Scenes(size=64)
    expected = images(source, range(20))
    data = pickle.dumps(source)
    assert len(data) < 10_000
    assert torch.equal(images(pickle.loads(data), range(20)), expected)


def test_lengths_and_ends():
    source = Scenes(size=32, train_size=3, val_size=2)
    assert len(source) == len(source.split("train")) == 3
    assert len(source.split("val")) == 2
    assert torch.equal(source[-1].image, source[2].image)
    with pytest.raises(IndexError):
        source[3]


def test_spec_round_trip():
    source = Scenes(size=(32, 48), task="single", seed=3)
    again = specs.build(specs.describe(source))
    assert torch.equal(again[0].image, source[0].image)


def test_pixels_change_only_with_the_version():
    """Rough golden values: whoever changes how scenes look raises ``RENDERER_VERSION`` and these numbers."""
    measured = [[round(v) for v in Scenes(size=64)[i].image.float().mean((1, 2)).tolist()] for i in (0, 7)]
    assert scenes.RENDERER_VERSION == 1
    assert torch.allclose(torch.tensor(measured), torch.tensor([[156, 145, 109], [105, 99, 100]]), atol=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "singel"}, "did you mean single"),
        ({"size": 16}, "size must be at least 32"),
        ({"size": (64, 8)}, "size must be at least 32"),
        ({"train_size": 0}, "train_size and val_size must be at least 1"),
        ({"background_correlation": 1.5}, r"background_correlation must be in \[0, 1\]"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        Scenes(**options)


def test_wrong_split():
    with pytest.raises(UserError, match="split must be train or val, got 'tests'"):
        Scenes().split("tests")
