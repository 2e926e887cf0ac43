import pytest
import torch

from dppmask.masks import MaskRatio
from dppmask.rng import fold_in
from dppmask.specs import build, describe


def test_a_fixed_ratio_always_gives_its_count():
    ratio = MaskRatio(0.75)
    assert {ratio.draw(196, generator=fold_in(0, step)) for step in range(5)} == {147}
    assert ratio.draw_per_image(4, 196, generator=fold_in(0, 1)).tolist() == [147] * 4


def test_an_interval_is_covered_and_not_left():
    ratio = MaskRatio((0.25, 0.75))
    counts = ratio.draw_per_image(4000, 20, generator=fold_in(0, 2))
    assert counts.dtype == torch.int64
    assert counts.unique().tolist() == list(range(5, 16))
    assert abs(counts.double().mean() - 10) < 0.2
    assert all(5 <= ratio.draw(20, generator=fold_in(1, step)) <= 15 for step in range(50))


def test_some_images_stay_whole():
    counts = MaskRatio(0.5, probability=0.3).draw_per_image(4000, 10, generator=fold_in(0, 3))
    assert set(counts.tolist()) == {0, 5}
    assert abs((counts > 0).double().mean() - 0.3) < 0.03


def test_equal_generators_give_equal_counts():
    draws = [MaskRatio((0.1, 0.9)).draw_per_image(16, 196, generator=fold_in(0, 4)) for _ in range(2)]
    assert torch.equal(*draws)


def test_equal_counts_exclude_whole_images():
    with pytest.raises(ValueError, match="use probability 1"):
        MaskRatio(0.5, probability=0.5).draw(196, generator=fold_in(0, 5))


@pytest.mark.parametrize("ratio", [MaskRatio(0.6), MaskRatio((0.4, 0.8), probability=0.5)], ids=repr)
def test_is_built_again_from_its_description(ratio):
    twin = build(describe(ratio))
    assert vars(twin).keys() == vars(ratio).keys()
    draws = [r.draw_per_image(8, 196, generator=fold_in(0, 6)) for r in (ratio, twin)]
    assert torch.equal(*draws)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0.0}, r"\(0, 1\), got 0.0"),
        ({"ratio": (0.5, 1.0)}, r"\(0, 1\), got 1.0"),
        ({"ratio": (0.8, 0.4)}, "low <= high"),
        ({"ratio": (0.1, 0.2, 0.3)}, "a number or"),
        ({"ratio": 0.5, "probability": 0.0}, "probability must be in"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskRatio(**arguments)
