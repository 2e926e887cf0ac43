"""Batches depend on (seed, position) alone, not on workers, interruptions or how ranks share a step."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dppmask.data.base import Sample
from dppmask.data.module import Batch, SlotSampler, TrainLoader, eval_batches
from dppmask.data.transforms import eval_transform, train_transform
from dppmask.errors import UserError
from dppmask.rng import fold_in

OPTIONS = {"batch_size": 3, "seed": 5, "accumulate": 2}


class Noise(Dataset[Sample]):
    """Noise images of different sizes, with or without labels."""

    def __init__(self, length: int, kind: str = "single") -> None:
        self.length = length
        self.kind = kind

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        size = (3, 12 + index % 3, 14)
        image = torch.randint(256, size, generator=fold_in(0, index), dtype=torch.uint8)
        if self.kind == "multi":
            return Sample(image, labels=torch.arange(4) == index % 4, sample_id=index)
        return Sample(image, label=index % 7 if self.kind == "single" else None, sample_id=index)


def any_generator(image: Tensor) -> tuple[Tensor, Tensor]:
    """A transform that draws from all three global generators."""
    draws = torch.tensor([torch.rand(()), np.random.rand(), random.random()])  # noqa: NPY002
    return draws, torch.zeros(5, dtype=torch.int64)


def loader(length: int = 31, **options: object) -> TrainLoader:
    return TrainLoader(Noise(length), train_transform(8), **(OPTIONS | options))


def take(batches: TrainLoader, count: int) -> list[Batch]:
    """The next batches, across epochs; leaves the loader in the middle, as a training that stops does."""
    taken: list[Batch] = []
    while len(taken) < count:
        for batch in batches:
            taken.append(batch)
            if len(taken) == count:
                break
    return taken


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for name in ("images", "sample_ids", "crops", "labels"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.fixture(scope="module")
def undisturbed() -> list[Batch]:
    """Two and a half epochs of ten batches."""
    return take(loader(), 25)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(undisturbed, num_workers):
    assert_same(take(loader(num_workers=num_workers), 25), undisturbed)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_at_any_position(undisturbed, num_workers):
    for position in (1, 7, 9, 10, 11, 20) if num_workers else range(25):
        first = loader(num_workers=num_workers)
        take(first, position)
        second = loader(num_workers=num_workers)
        second.load_state_dict(first.state_dict())
        assert_same(take(second, 25 - position), undisturbed[position:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_position_counts_what_was_handed_out(num_workers):
    batches = loader(num_workers=num_workers)
    for count, _ in enumerate(batches, start=1):
        state = batches.state_dict()
        assert (state["epoch"], state["batches"]) == (0, count)
    assert count == len(batches) == 10


def test_iteration_goes_on_where_it_was_left(undisturbed):
    batches = loader()
    assert_same([*take(batches, 4), *take(batches, 21)], undisturbed)


def test_set_epoch(undisturbed):
    batches = loader()
    batches.set_epoch(0)
    take(batches, 3)
    batches.set_epoch(0)
    assert_same(take(batches, 1), undisturbed[3:4])
    batches.set_epoch(2)
    assert_same(take(batches, 5), undisturbed[20:])
    assert batches.epoch == 2


def test_finished_epoch_then_set_epoch_gives_the_next_whole_epoch(undisturbed):
    batches = loader()
    for epoch in range(2):
        batches.set_epoch(epoch)
        assert_same(list(batches), undisturbed[10 * epoch : 10 * epoch + 10])


def test_samples_depend_on_all_three_global_generators_and_nothing_else():
    batches = TrainLoader(Noise(8), any_generator, batch_size=8, seed=0)
    torch.manual_seed(1)
    first = take(batches, 2)
    torch.manual_seed(2)
    random.seed(3)
    assert_same(take(TrainLoader(Noise(8), any_generator, batch_size=8, seed=0), 2), first)
    drawn = torch.cat([batch.images for batch in first])
    assert len(drawn.unique()) == drawn.numel()  # every sample, epoch and generator its own


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_generators_are_left_alone(num_workers):
    states = [torch.get_rng_state(), np.random.get_state()[1], random.getstate()]  # noqa: NPY002
    take(loader(num_workers=num_workers), 12)
    list(eval_batches(Noise(5), train_transform(8), batch_size=2, num_workers=num_workers))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()


def test_another_seed_gives_other_batches(undisturbed):
    other = take(loader(seed=6), 25)
    assert not torch.equal(other[0].sample_ids, undisturbed[0].sample_ids)
    ids = torch.cat([batch.sample_ids for batch in other[:10]])
    assert len(ids.unique()) == 30


def test_every_epoch_is_another_permutation_without_repetition(undisturbed):
    epochs = [torch.cat([b.sample_ids for b in undisturbed[first : first + 10]]) for first in (0, 10)]
    for ids in epochs:
        assert len(ids.unique()) == 30
    assert not torch.equal(*epochs)


def keys_of_step(step: int, world_size: int, accumulate: int, batch_size: int = 4) -> list[tuple[int, int]]:
    """All keys of one optimiser step, in the order of slots: micro-batches first, ranks within."""
    ranks = [
        list(
            SlotSampler(
                53, batch_size=batch_size, seed=1, world_size=world_size, rank=rank, accumulate=accumulate
            )
        )
        for rank in range(world_size)
    ]
    micro_batches = range(step * accumulate, (step + 1) * accumulate)
    return [key for micro_batch in micro_batches for rank in ranks for key in rank[micro_batch]]


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 2), (4, 1), (2, 2), (1, 4)])
def test_ranks_and_accumulation_deal_the_same_steps(world_size, accumulate):
    slots = world_size * accumulate
    order = torch.randperm(53, generator=fold_in(1, 0)).tolist()
    for step in range(53 // (4 * slots)):
        expected = order[step * 4 * slots : (step + 1) * 4 * slots]
        assert keys_of_step(step, world_size, accumulate) == [(0, index) for index in expected]


def test_two_ranks_see_what_one_rank_sees_with_accumulation():
    ranks = [take(loader(world_size=2, rank=rank, accumulate=1), 10) for rank in range(2)]
    together = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    assert_same(together, take(loader(accumulate=2), 20))


def test_position_passes_between_ranks_and_accumulation_at_a_step():
    one = loader(accumulate=2)
    expected = take(one, 20)[6:]
    one = loader(accumulate=2)
    take(one, 6)
    ranks = []
    for rank in range(2):
        part = loader(world_size=2, rank=rank, accumulate=1)
        part.load_state_dict(one.state_dict())
        ranks.append(take(part, 7))
    assert_same([batch for pair in zip(*ranks, strict=True) for batch in pair], expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 6}, "seed 5, this run has 6"),
        ({"length": 40}, "num_samples 31, this run has 40"),
        ({"batch_size": 5}, "samples_per_step 6, this run has 10"),
        ({"batch_size": 6, "accumulate": 1}, "within a step of accumulate 2, got accumulate 1"),
    ],
)
def test_position_of_another_run_is_refused(changed, message):
    first = loader()
    take(first, 3)
    with pytest.raises(UserError, match=message):
        loader(**changed).load_state_dict(first.state_dict())


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 11, 50])
def test_eval_batches_give_every_sample_once_in_order(num_workers, batch_size):
    if num_workers and batch_size == 1:
        pytest.skip("the same as batch size 4, slower")
    batches = list(eval_batches(Noise(11), eval_transform(8), batch_size=batch_size, num_workers=num_workers))
    assert torch.cat([batch.sample_ids for batch in batches]).tolist() == list(range(11))
    expected = torch.stack([eval_transform(8)(Noise(11)[index].image)[0] for index in range(11)])
    assert torch.equal(torch.cat([batch.images for batch in batches]), expected)
    assert all(len(batch.images) == batch_size for batch in batches[:-1])


def test_labels_of_every_kind():
    kinds = {kind: next(iter(eval_batches(Noise(6, kind), eval_transform(8), batch_size=6))) for kind in
             ("single", "multi", "none")}  # fmt: skip
    assert kinds["single"].labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert kinds["multi"].labels.dtype == torch.bool
    assert kinds["multi"].labels.shape == (6, 4)
    assert kinds["none"].labels is None


def test_batch_has_the_promised_types(undisturbed):
    batch = undisturbed[0]
    assert batch.images.shape == (3, 3, 8, 8)
    assert batch.images.dtype == torch.float32
    assert batch.crops.shape == (3, 5)
    assert batch.crops.dtype == batch.sample_ids.dtype == batch.labels.dtype == torch.int64


@pytest.mark.gpu
def test_pinned_batches():
    batch = next(iter(loader(pin_memory=True)))
    assert batch.images.is_pinned()
    assert batch.labels.is_pinned()


def test_workers_bring_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take(loader(num_workers=2), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 16}, "batch_size 16 x 1 devices x accumulate 2 needs 32 images a step"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"world_size": 2, "rank": 2}, r"rank must be in \[0, 1\]"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        loader(**options)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 4, "num_workers": -1}])
def test_wrong_options_of_eval_batches(options):
    with pytest.raises(UserError, match="must be at least"):
        next(eval_batches(Noise(3), eval_transform(8), **options))
