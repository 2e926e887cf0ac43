import pytest
import torch

from dppmask.masks import Coarse, DPPMask, MaskContext, PurgeSchedule, RandomMask
from dppmask.rng import fold_in

GRID = (4, 5)


def context(progress: float = 0.0) -> MaskContext:
    tokens = torch.randn(6, 20, 5, generator=fold_in(0))
    return MaskContext(grid=GRID, progress=progress, tokens=tokens)


def draw(strategy, x: MaskContext, num_masked=12):
    return strategy(x, num_masked, generator=fold_in(1))


def assert_same(actual, expected):
    assert torch.equal(actual.masked, expected.masked)
    assert torch.equal(actual.scores, expected.scores)


@pytest.mark.parametrize("options", [{}, {"bandwidth": 0.6}, {"first": "argmax"}], ids=str)
@pytest.mark.parametrize(
    ("start", "end", "progress", "purge_ratio"),
    [
        (0.0, 0.6, 0.0, 0.0),
        (0.0, 0.6, 0.25, 0.15),
        (0.0, 0.6, 1.0, 0.6),
        (0.9, 0.1, 0.0, 0.9),
        (0.9, 0.1, 0.5, 0.5),
        (0.9, 0.1, 1.2, 0.1),  # beyond the end it stays
        (0.3, 0.3, 0.7, 0.3),
    ],
)
@pytest.mark.parametrize("num_masked", [12, torch.tensor([0, 3, 19, 12, 12, 7])], ids=["equal", "ragged"])
def test_each_moment_has_the_mask_of_its_purge_ratio(start, end, progress, purge_ratio, options, num_masked):
    schedule = PurgeSchedule(DPPMask(start, **options), end)
    assert schedule.purge_ratio_at(progress) == pytest.approx(purge_ratio, abs=1e-15)
    assert_same(
        draw(schedule, context(progress), num_masked),
        draw(DPPMask(purge_ratio, **options), context(), num_masked),
    )


def test_it_ends_at_random_masks():
    schedule = PurgeSchedule(DPPMask(0.0), 1.0)
    random = draw(RandomMask(), context()).masked
    assert torch.equal(draw(schedule, context(1.0)).masked, random)
    assert not torch.equal(draw(schedule, context(0.0)).masked, random)


def test_fewer_picks_as_the_purge_ratio_rises():
    schedule = PurgeSchedule(DPPMask(0.0), 1.0)
    picks = [int((draw(schedule, context(p)).scores > 0).sum()) for p in (0.0, 0.4, 0.7, 0.9, 1.0)]
    assert picks[0] == 6 * 8
    assert picks[-1] == 0
    assert picks == sorted(picks, reverse=True)
    assert len(set(picks)) > 3


def test_cells_know_how_far_the_training_is():
    schedule = Coarse(PurgeSchedule(DPPMask(0.0), 1.0), cell=2)
    tokens = torch.randn(6, 24, 5, generator=fold_in(0))
    late = MaskContext(grid=(4, 6), progress=1.0, tokens=tokens)
    assert torch.equal(draw(schedule, late).masked, draw(Coarse(RandomMask(), cell=2), late).masked)


def test_one_graph_serves_all_moments():
    schedule, noise = PurgeSchedule(DPPMask(0.0), 1.0), torch.rand(6, 20, generator=fold_in(1))
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(schedule.choose, fullgraph=True, backend=keep)
    for progress in (0.0, 0.3, 0.55, 1.0):
        features = schedule.features(context(progress))
        assert_same(compiled(features, noise, 12), schedule.choose(features, noise, 12))
    assert len(graphs) == 1
    torch.compiler.reset()


@pytest.mark.parametrize("end", [-0.1, 1.1, float("nan")])
def test_an_end_that_is_no_purge_ratio_is_refused(end):
    with pytest.raises(ValueError, match=r"end must be in \[0, 1\], got .*; 0 is fully greedy, 1 is random"):
        PurgeSchedule(DPPMask(), end)
