"""The contract suite over every strategy of the package; a new strategy joins by a line in ``STRATEGIES``."""

import copy
import importlib
import inspect
import pkgutil

import pytest

import dppmask.masks
from dppmask.masks import (
    AttMask,
    BlockMask,
    Coarse,
    DPPMask,
    KDPPMask,
    MaskStrategy,
    PurgeSchedule,
    RandomMask,
)
from strategy_contract import StrategyContract

STRATEGIES = [
    RandomMask(),
    DPPMask(),
    DPPMask(purge_ratio=0.0, source="pixels"),
    DPPMask(purge_ratio=0.6, source="teacher", bandwidth=0.5),
    DPPMask(purge_ratio=0.0, first="argmax"),
    DPPMask(purge_ratio=0.9, first="argmax", source="pixels"),
    PurgeSchedule(DPPMask(purge_ratio=0.0), end=0.6),
    PurgeSchedule(DPPMask(purge_ratio=0.5, source="teacher", bandwidth=0.5), end=0.0),
    KDPPMask(),
    KDPPMask(source="pixels"),
    BlockMask(),
    BlockMask(min_area=4, max_area=9, min_aspect=1.0, tries=3),
    AttMask(),
    AttMask("hint"),
    AttMask("hint", show_max=1.0, show_ratio=(0.2, 0.8)),
    AttMask("low"),
    Coarse(RandomMask(), cell=3),
    Coarse(DPPMask(source="pixels"), cell=3),
    Coarse(PurgeSchedule(DPPMask(purge_ratio=0.6), end=0.0), cell=3),
    Coarse(BlockMask(), cell=3),
    Coarse(AttMask("hint", show_max=0.5), cell=3),
]


@pytest.fixture(params=STRATEGIES, ids=lambda s: " ".join(repr(s).split()))
def strategy(request):
    return copy.deepcopy(request.param)


class TestContract(StrategyContract):
    """Every promise, for every strategy."""


def test_every_strategy_is_listed():
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.iter_modules(dppmask.masks.__path__, "dppmask.masks.")
    ]
    concrete = {
        item
        for module in modules
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, MaskStrategy) and item is not MaskStrategy and not inspect.isabstract(item)
    }
    assert {type(strategy) for strategy in STRATEGIES} == concrete
