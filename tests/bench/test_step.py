"""The step in the way a GPU runs it: under autocast and compiled."""

from functools import partialmethod

import pytest
import torch
from torch import nn

from dppmask.bench.arithmetic import Shape
from dppmask.bench.inputs import OURS, STRATEGIES
from dppmask.bench.settings import Settings
from dppmask.bench.step import RIVAL, Mode, measure
from dppmask.models.mae import MAE

SETTINGS = Settings(torch.device("cpu"), ("test_vit",), (2,), 0.75, 32, 8, repeats=1, quick=True)


@pytest.fixture
def compiled_graphs(monkeypatch):
    """Compile by tracing alone, which takes no compiler; the graphs that were traced."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(MAE, "compile", partialmethod(nn.Module.compile, backend=keep, fullgraph=True))
    torch.compiler.reset()
    yield graphs
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks at it
def test_all_masks_share_two_graphs_and_break_none(compiled_graphs):
    half = Mode(torch.bfloat16, compiled=True)
    measured = measure("test_vit", 2, SETTINGS, {OURS: half, RIVAL: half._replace(compiled=False)})
    assert list(measured.steps) == [*STRATEGIES, RIVAL]
    assert list(measured.masks) == list(STRATEGIES)
    assert measured.shape == Shape(2, 16, 4, 64)
    assert len(compiled_graphs) == 2, "tokens are embedded inside the graph, or before it for the mask"


def test_modes_name_their_precision():
    assert Mode(torch.bfloat16, compiled=True).columns() == {"dtype": "bfloat16", "compiled": True}
    with Mode(torch.float32, compiled=False).autocast(torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
    with Mode(torch.bfloat16, compiled=False).autocast(torch.device("cpu")):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
