"""Every strategy works with every method: trains, resumes exactly, runs on two ranks.

A new strategy joins by its line in test_strategies.py, a new method by its line in method_runs.py.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from method_runs import METHODS, PAIRS, name_of, options_of

import dppmask.models
from dppmask.models.base import MaskedImageModel
from dppmask.training.callbacks import read_metrics
from dppmask.training.run import pretrain
from two_ranks import run_on_two_ranks


class PowerCut(BaseException):
    """What no code of the library catches."""


class CutAt(Callback):
    """Ends the training, without any manners, before a batch."""

    def __init__(self, batch: int) -> None:
        self.left = batch

    def on_train_batch_start(self, *_: object) -> None:
        if self.left == 0:
            raise PowerCut
        self.left -= 1


def last_checkpoint(run: Path) -> dict[str, object]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: content[name] for name in ("state_dict", "optimizer_states", "global_step")}


@pytest.mark.parametrize(("method", "strategy"), PAIRS, ids=[name_of(*pair) for pair in PAIRS])
def test_trains_and_resumes_exactly(method, strategy, tmp_path):
    options = options_of(method, strategy)
    undisturbed = pretrain(run=tmp_path / "undisturbed", **options)
    with pytest.raises(PowerCut):
        pretrain(run=tmp_path / "cut", **options, callbacks=[CutAt(3)])
    resumed = pretrain(run=tmp_path / "cut", **options, resume=True)
    expected = last_checkpoint(undisturbed.path)
    torch.testing.assert_close(last_checkpoint(resumed.path), expected, rtol=0, atol=0)
    assert expected["global_step"] == 4
    numbers = read_metrics(undisturbed.path / "metrics.jsonl")
    assert torch.tensor([line["loss"] for line in numbers]).isfinite().all()
    assert all(value.isfinite().all() for value in expected["state_dict"].values())


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder of the runs of method_ranks_script.py."""
    folder = tmp_path_factory.mktemp("ranks")
    run_on_two_ranks(Path(__file__).with_name("method_ranks_script.py"), folder)
    return folder


@pytest.mark.parametrize(("method", "strategy"), PAIRS, ids=[name_of(*pair) for pair in PAIRS])
def test_runs_on_two_ranks(two_ranks, method, strategy):
    numbers = read_metrics(two_ranks / name_of(method, strategy) / "metrics.jsonl")
    assert [line["step"] for line in numbers] == [1, 2]
    assert torch.tensor([line["loss"] for line in numbers]).isfinite().all()


def test_every_method_is_listed():
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.iter_modules(dppmask.models.__path__, "dppmask.models.")
    ]
    concrete = {
        name
        for module in modules
        for name, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, MaskedImageModel) and item is not MaskedImageModel
    }
    assert concrete == METHODS.keys()
