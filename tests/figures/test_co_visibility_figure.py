import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from dppmask.data.scenes import Scenes
from dppmask.data.transforms import eval_transform
from dppmask.errors import UserError
from dppmask.evaluation.base import Subject
from dppmask.evaluation.co_visibility import CoVisibility, co_visibility
from dppmask.evaluation.features import resize_ratio_of
from dppmask.evaluation.mask_batches import make_context
from dppmask.figures.co_visibility import (
    CHOSEN,
    CoVisibilityMaps,
    default_place,
    draw_co_visibility,
    draw_maps,
)
from dppmask.masks import AttMask, DPPMask, KDPPMask, RandomMask
from dppmask.models.checkpoint import save_encoder

GRID, PLACE = (3, 4), (1, 2)
STRATEGIES = {
    "random": RandomMask(),
    "dpp": DPPMask(0.0, source="pixels"),
    "kdpp": KDPPMask(source="pixels", bandwidth=0.5),
}


def scenes(**changes):
    return Scenes(**{"size": 32, "train_size": 3, "val_size": 2} | changes)


@pytest.fixture
def maps(images, pixels):
    context = make_context(images[:1], GRID, Subject())
    found = co_visibility(context, STRATEGIES, mask_ratio=0.5, num_masks=200)
    return CoVisibilityMaps(pixels[0], GRID, PLACE, found, "a note")


def test_what_is_exact_stands_beside_what_was_counted(maps):
    panels = {panel.title: panel for panel in maps.panels()}
    assert list(panels) == ["random\n200 masks", "dpp\n200 masks", "kdpp\nexact", "kdpp\n200 masks"]
    kdpp = maps.found["kdpp"]
    for kind, pairs in {"exact": kdpp.exact, "200 masks": kdpp.shares}.items():
        expected = pairs[6] / pairs[6, 6] * 11 / 5
        values = panels[f"kdpp\n{kind}"].values
        assert values[6].isnan()
        torch.testing.assert_close(values[maps.chosen.logical_not()], expected[maps.chosen.logical_not()])
    deviation = kdpp.deviations[6][[i for i in range(12) if i != 6]].abs().max().item()
    assert 0 < deviation < 4.5
    assert panels["kdpp\n200 masks"].below.endswith(f"off by {deviation:.1f} s.e. at most")
    assert panels["kdpp\nexact"].below == f"itself visible in {kdpp.exact[6, 6]:.1%}"
    assert "off by" not in panels["dpp\n200 masks"].below


def test_maps_share_one_scale_of_colours_around_one(maps, boxes):
    figure = draw_maps(maps)
    image, *heats, bar = figure.axes
    assert image.get_title() == "image"
    scales = {(heat.images[0].norm.vmin, heat.images[0].norm.vmax) for heat in heats}
    ((low, high),) = scales
    assert low * high == pytest.approx(1)
    assert 1.1 <= high <= 4.0
    for panel, heat in zip(maps.panels(), heats, strict=True):
        shown = torch.tensor(heat.images[0].get_array().filled(torch.nan)).flatten()
        torch.testing.assert_close(shown, panel.values, equal_nan=True)
        assert heat.get_title() == panel.title
        assert heat.get_xlabel().endswith(panel.below)
    for place in (image, *heats):
        assert boxes(place) == {"chosen": [PLACE]}
        assert to_hex(place.collections[0].get_edgecolor()[0]) == CHOSEN
    ticks = [text.get_text() for text in bar.get_yticklabels()]
    assert "1 ×" in ticks
    assert len(ticks) >= 3
    assert figure.get_supxlabel().endswith("\na note")


def test_no_text_lies_on_another(maps):
    longer = {f"{title}\nwith\noptions": pairs for title, pairs in maps.found.items()}
    for drawn in (maps, CoVisibilityMaps(maps.image, GRID, PLACE, longer, "a note")):
        figure = draw_maps(drawn)
        FigureCanvasAgg(figure).draw()
        caption = figure._supxlabel.get_window_extent()
        for place in figure.axes[1:-1]:
            assert place.xaxis.label.get_window_extent().y0 > caption.y1
            assert place.title.get_window_extent().y1 < figure.bbox.y1


def test_a_patch_that_is_never_visible_is_drawn_in_the_last_red(pixels):
    never = CoVisibility(torch.zeros(12, 12, dtype=torch.float64), 10, 6)
    figure = draw_maps(CoVisibilityMaps(pixels[0], GRID, PLACE, {"never": never}))
    drawn = figure.axes[1].images[0]
    assert drawn.to_rgba(drawn.get_array())[0, 0].tolist() == list(drawn.cmap(0.0))
    assert figure.axes[1].get_xlabel() == "0.00 to 0.00 ×\nitself visible in 0.0%"


def test_the_summary_has_a_line_for_each_strategy(maps):
    random, dpp, kdpp = maps.summary()
    assert random.startswith("random: patch 1, 2 is visible in ")
    assert "of 200 masks" in dpp
    assert "exact" not in dpp
    deviation = maps.found["kdpp"].deviations[6][~maps.chosen].abs().max()
    assert f"off the exact chances by {deviation:.2f} standard errors at most" in kdpp


def test_default_place():
    assert default_place(None, (3, 4)) == default_place(torch.zeros(0, 24, 32).bool(), (3, 4)) == (1, 2)
    objects = torch.zeros(2, 24, 32, dtype=torch.bool)
    objects[0, :9, :9] = True
    objects[1, 8:24, 4:32] = True  # the patches full of it are in the lower two rows, columns 1 to 3
    assert default_place(objects, (3, 4))[1] == 2
    ring = torch.zeros(1, 24, 24, dtype=torch.bool)
    ring[0, :, :8] = ring[0, :8] = True  # its centre of mass is on a patch that it touches, but does not fill
    assert default_place(ring, (3, 3)) in {(0, 0), (0, 1), (1, 0)}


def test_the_default_patch_of_the_command_is_on_an_object(tmp_path):
    options = {"mask": [DPPMask(source="pixels")], "num_masks": 20, "image_size": 32, "patch_size": 4}
    source = scenes(size=64).split("val")
    transform = eval_transform(32, resize_ratio=resize_ratio_of(source))
    for image in range(len(source)):
        out = tmp_path / f"{image}.png"
        path, maps = draw_co_visibility(
            data=scenes(size=64), image=image, out=str(out), split="val", backbone="test_vit", **options
        )
        assert path == out
        assert out.exists()
        row, column = maps.place
        seen = transform.geometry(source[image].objects)[
            :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4
        ]
        assert seen.all((1, 2)).any()


def test_the_command_reads_the_tokens_and_attention_of_a_run(tmp_path, make_mae):
    encoder = make_mae(seed=3).encoder
    save_encoder(encoder, tmp_path / "run" / "encoder")
    out = tmp_path / "a.svg"
    path, maps = draw_co_visibility(
        data=scenes(size=(36, 48)),
        mask=[KDPPMask(), AttMask()],
        mask_ratio=0.5,
        run=str(tmp_path / "run"),
        out=str(out),
        patch=(2, 3),
        num_masks=50,
    )
    assert path.read_text().startswith("<?xml")
    assert list(maps.found) == ["RandomMask", "KDPPMask", "AttMask"]
    assert maps.place == (2, 3)
    assert maps.note == f"tokens of {tmp_path / 'run'}"
    assert maps.found["KDPPMask"].exact is not None


def test_equal_seeds_draw_equal_pictures(tmp_path):
    def draw(seed, name):
        options = {"image_size": 32, "patch_size": 8, "backbone": "test_vit", "num_masks": 20}
        path, _ = draw_co_visibility(
            data=scenes(), mask=[DPPMask(source="pixels")], out=str(tmp_path / name), seed=seed, **options
        )
        return path.read_bytes()

    assert draw(0, "a.png") == draw(0, "b.png") != draw(1, "c.png")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "a.gif"}, "out must end with"),
        ({"image": 3}, r"image must be in \[0, 2\] for 3 images, got 3"),
        ({"image": -1}, r"image must be in \[0, 2\] for 3 images, got -1"),
        ({"patch": (4, 0)}, "patch must lie in the grid of 4 × 4 patches, got row 4, column 0"),
        ({"patch": (0, -1)}, "got row 0, column -1"),
        ({"num_masks": 1}, "num_masks must be at least 2"),
        ({"mask_ratio": 1.5}, r"mask_ratio must be in \(0, 1\), got 1.5"),
        ({"mask": [DPPMask(source="pixels")] * 2}, "masks must all differ"),
        ({"run": "x"}, "backbone and patch_size are those of the run x"),
    ],
)
def test_wrong_options_of_the_command(tmp_path, options, words):
    defaults = {"image_size": 32, "patch_size": 8, "backbone": "test_vit", "mask": [RandomMask()]}
    options = {"out": "a.png"} | options
    with pytest.raises(UserError, match=words) as refused:
        draw_co_visibility(data=scenes(), **defaults | options | {"out": str(tmp_path / options["out"])})
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
