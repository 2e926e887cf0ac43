import pytest

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation import Alignment, Subject
from dppmask.figures.alignment import KEPT, LOST, PANELS, cloud_panels, draw, ratio_sweeps, square_limits
from dppmask.masks import DPPMask, RandomMask
from dppmask.models.encoder import Encoder
from dppmask.rng import seeded


@pytest.fixture(scope="module")
def record():
    with seeded(0):
        encoder = Encoder("test_vit", image_size=32, patch_size=4)
    protocol = Alignment(
        [DPPMask(0.7), DPPMask(0.2), RandomMask()],
        mask_ratios=[0.7, 0.4],
        num_masks=3,
        random_encoder=False,
        num_clouds=2,
        cloud_size=6,
    )
    result = protocol.run(Subject(encoder), Scenes(size=32, train_size=1, val_size=8))
    return {"tables": result.tables, "metrics": result.metrics, "errors": result.standard_errors}


def test_curves_are_the_metrics_by_ratio_and_tau(record):
    for name in PANELS:
        sweeps = ratio_sweeps(record["tables"], name)
        assert list(sweeps) == [0.4, 0.7]
        for ratio, sweep in sweeps.items():
            (curve,) = sweep.curves.values()
            if not name.startswith("lost"):
                assert curve.purge_ratios == [0.2, 0.7], "those of the others depend on what is lost"
            keys = [f"DPPMask(purge_ratio={tau})@{ratio}/{name}" for tau in curve.purge_ratios]
            assert curve.values == [record["metrics"][key] for key in keys]
            assert curve.standard_errors == [record["errors"][key] for key in keys]
            key = f"RandomMask@{ratio}/{name}"
            assert sweep.random == (record["metrics"][key], record["errors"][key])


def test_panels_show_every_ratio_beside_random_masks(record):
    figure = draw([record])
    curves = figure.axes[: len(PANELS)]
    for axes, (name, (title, unit)) in zip(curves, PANELS.items(), strict=True):
        assert (axes.get_title(loc="left"), axes.get_ylabel()) == (title, unit)
        drawn = [container[0] for container in axes.containers]
        expected = ratio_sweeps(record["tables"], name)
        assert [container.get_label() for container in axes.containers] == ["ratio 0.4", "ratio 0.7"]
        for line, sweep in zip(drawn, expected.values(), strict=True):
            (curve,) = sweep.curves.values()
            assert line.get_ydata() == pytest.approx(curve.values)
            dashed = [
                other
                for other in axes.lines
                if other.get_color() == line.get_color() and other.get_linestyle() == "--"
            ]
            assert dashed[0].get_ydata()[0] == sweep.random[0]


def test_clouds_stand_side_by_side_and_mark_what_is_lost(record):
    panels = cloud_panels(record["tables"])
    assert [(title, row["image"], row["mask_ratio"]) for title, row in panels] == [
        ("random masks", 0, 0.7),
        ("DPP masks, τ = 0.2", 0, 0.7),
        ("random masks", 1, 0.7),
        ("DPP masks, τ = 0.2", 1, 0.7),
    ]
    places = draw([record]).axes[len(PANELS) :]
    assert places[0].get_xlim() == places[1].get_xlim()
    assert places[0].get_ylim() == places[1].get_ylim()
    for axes, (title, row) in zip(places, panels, strict=True):
        kept, lost, whole = axes.collections
        assert axes.get_title(loc="left").startswith(title)
        points = list(zip(row["x"], row["y"], strict=True))
        for drawn, flag in ((kept, False), (lost, True)):
            expected = [point for point, is_lost in zip(points, row["lost"], strict=True) if is_lost == flag]
            assert drawn.get_offsets().tolist() == [list(point) for point in expected]
        assert whole.get_offsets().tolist() == [[0.0, 0.0]]
    assert kept.get_facecolor().tolist() != lost.get_facecolor().tolist()
    assert KEPT != LOST


def test_limits_hold_all_points_in_equal_intervals():
    (left, right), (low, high) = square_limits([{"x": [1.0, 3.0], "y": [-1.0, 0.5]}])
    assert right - left == pytest.approx(high - low)
    assert left < 0.0 < 3.0 < right
    assert low < -1.0 < 0.5 < high


def test_without_clouds_or_objects_there_are_curves_alone(record):
    kept = [row for row in record["tables"]["statistics"] if "lost" not in row["statistic"]]
    tables = record["tables"] | {"clouds": [], "statistics": kept}
    assert len(draw([{"tables": tables}]).axes) == 2


def test_what_cannot_be_drawn(record):
    with pytest.raises(UserError, match="Alignment draws one record, got 2"):
        draw([record, record])
    with pytest.raises(UserError, match="all images have the same vector"):
        draw([{"tables": record["tables"] | {"statistics": []}}])
