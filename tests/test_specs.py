from functools import partial

import pytest

from dppmask.errors import UserError
from dppmask.masks import Coarse, DPPMask, RandomMask
from dppmask.specs import build, describe


class Pair:
    def __init__(self, parts, scale: float = 1.0):
        self.parts = parts
        self.scale = scale


@pytest.mark.parametrize(
    "value", [RandomMask(), DPPMask(purge_ratio=0.1), Coarse(DPPMask(source="pixels"), cell=4)], ids=repr
)
def test_building_undoes_describing(value):
    again = build(describe(value))
    assert type(again) is type(value)
    assert describe(again) == describe(value)


def test_objects_in_lists_are_built():
    parts = build(describe(Pair([DPPMask(0.1), RandomMask(), 3]))).parts
    assert [type(part) for part in parts] == [DPPMask, RandomMask, int]
    assert parts[0].purge_ratio == 0.1


def test_partial_calls_and_classes_name_every_default():
    spec = describe(partial(DPPMask, purge_ratio=0.1))
    defaults = {"source": "tokens", "bandwidth": 1.0, "first": "noise"}
    assert spec["init_args"] == {"purge_ratio": 0.1, **defaults}
    assert describe(DPPMask) == describe(DPPMask())


def test_arguments_join_those_of_the_spec():
    assert build({"class_path": f"{__name__}.Pair", "init_args": {"scale": 2.0}}, 5).parts == 5


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"class_path": "nowhere.Mask"}, "'nowhere.Mask'"),
        ({"class_path": "dppmask.masks.NoMask"}, r"'dppmask\.masks\.NoMask'"),
        ({"class_path": "dppmask.masks.DPPMask", "init_args": {"purge": 1}}, "purge"),
    ],
)
def test_what_is_not_there_is_named(spec, message):
    with pytest.raises(UserError, match=message):
        build(spec)


def test_an_argument_that_is_not_kept_is_an_error():
    class Forgetful:
        def __init__(self, size: int):
            pass

    with pytest.raises(TypeError, match="Forgetful does not keep its constructor argument 'size'"):
        describe(Forgetful(3))
