import pytest

from dppmask.data.scenes import Scenes
from dppmask.evaluation.base import Subject
from dppmask.evaluation.mask_statistics import MaskStatistics
from dppmask.figures.mask_statistics import PANELS, draw_statistics, sweeps
from dppmask.figures.style import RANDOM
from dppmask.masks import DPPMask, KDPPMask


@pytest.fixture(scope="module")
def result():
    masks = [DPPMask(tau, source="pixels") for tau in (1.0, 0.0, 0.5)] + [KDPPMask(source="pixels")]
    protocol = MaskStatistics(masks, image_size=32, patch_size=8)
    return protocol.run(Subject(), Scenes(size=32, train_size=1, val_size=4))


def test_values_are_those_of_the_result_in_the_order_of_tau(result):
    found = sweeps(result.tables)
    assert set(found) == set(PANELS)
    for name, sweep in found.items():
        (curve,) = sweep.curves.values()
        assert list(sweep.curves) == [""]
        assert curve.purge_ratios == [0.0, 0.5, 1.0]
        for tau, value, error in zip(curve.purge_ratios, curve.values, curve.standard_errors, strict=True):
            (key,) = (k for k in result.metrics if f"purge_ratio={tau}" in k and k.endswith(f"/{name}"))
            assert (value, error) == (result.metrics[key], result.standard_errors[key])
        if name != "greedy_picks":
            key = f"RandomMask/{name}"
            assert sweep.random == (result.metrics[key], result.standard_errors[key])
    assert found["greedy_picks"].random is None


def test_families_are_named_by_what_differs():
    rows = [
        {
            "strategy": f"{source}{tau}",
            "class_path": "dppmask.masks.dpp.DPPMask",
            "init_args": {"purge_ratio": tau, "source": source, "bandwidth": 1.0},
        }
        for source in ("pixels", "tokens")
        for tau in (0.0, 0.5)
    ]
    statistics = [
        {"strategy": row["strategy"], "statistic": "spread", "value": 1.0, "standard_error": 0.1}
        for row in rows
    ]
    (sweep,) = sweeps({"strategies": rows, "statistics": statistics}).values()
    assert set(sweep.curves) == {"source pixels", "source tokens"}
    assert sweep.random is None


def test_every_panel_shows_values_with_error_bars_and_random_masks(result):
    found = sweeps(result.tables)
    figure = draw_statistics(found)
    for axes, (name, sweep) in zip(figure.axes, found.items(), strict=True):
        assert axes.get_title(loc="left") == PANELS[name].title
        assert axes.get_xlabel() == "purge ratio τ"
        assert axes.get_ylabel()
        (drawn,) = axes.containers
        (curve,) = sweep.curves.values()
        line, _, (bars,) = drawn
        assert line.get_xdata() == pytest.approx(curve.purge_ratios)
        assert line.get_ydata() == pytest.approx(curve.values)
        for segment, value, error in zip(
            bars.get_segments(), curve.values, curve.standard_errors, strict=True
        ):
            assert segment[:, 1] == pytest.approx([value - error, value + error])
        across = [line for line in axes.lines if line.get_color() == RANDOM]
        assert [line.get_ydata()[0] for line in across] == ([] if sweep.random is None else [sweep.random[0]])
        if PANELS[name].percent:
            assert axes.get_ylim()[0] == 0
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["random masks", "DPP masks"]
