"""Batches: which sample goes where and when, the same for any number of workers and after any interruption.

Every optimiser step takes the next ``E = batch_size * world_size * accumulate`` samples of the epoch's
permutation, which the source draws. Slot ``j = micro_batch * world_size + rank`` of the step gets its j-th
run of ``batch_size`` samples, so two ranks see what one rank with doubled accumulation sees. The samples left
over at the end of an epoch are dropped; the next epoch shuffles anew.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dppmask.data.base import ImageSource, Sample
from dppmask.errors import UserError
from dppmask.rng import fold_in, seeded
from dppmask.views import Views, join_views, stack_view_major

Images = TypeVar("Images", Tensor, Views)
Transform = Callable[
    [Tensor], tuple[Images, Tensor]
]  # image → (network's input, its crop [5] or crops [G, 5])
Key = tuple[int, int]  # (epoch, index)
Order = Callable[[torch.Generator], Tensor]  # draws the permutation of an epoch


@dataclass(frozen=True, eq=False)
class Batch(Generic[Images]):
    """Images as the network wants them, and where they come from.

    Attributes:
        images: float32 ``[B, C, H, W]``, normalised; or views of them, with G global crops each.
        sample_ids: int64 ``[B]``, indices in the source; with views ``[G * B]``, one per global crop.
        crops: int64 ``[B, 5]``: top, left, height, width in stored pixels, 1 if flipped; with views
            ``[G * B, 5]``.
        labels: int64 ``[B]`` class indices, bool ``[B, num_labels]``, or None.
    """

    images: Images
    sample_ids: Tensor
    crops: Tensor
    labels: Tensor | None = None

    def pin_memory(self) -> "Batch[Images]":
        """The same in page-locked memory; the name is torch's convention."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return Batch(self.images.pin_memory(), self.sample_ids.pin_memory(), self.crops.pin_memory(), labels)


class SlotSampler(Sampler[list[Key]]):
    """The keys of one rank's batches of an epoch, from the batch ``start`` on.

    Args:
        num_samples: Number of samples in the source.
        batch_size: Samples per rank and micro-batch.
        seed: The run's seed.
        world_size: Number of ranks.
        rank: Of this process.
        accumulate: Micro-batches per optimiser step.
        order: Draws the permutation of an epoch; uniformly random by default.

    Attributes:
        epoch: Which permutation.
        start: How many batches of it to leave out.

    Raises:
        UserError: If a number is out of range, or the samples do not fill one optimiser step.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        accumulate: int = 1,
        order: Order | None = None,
    ) -> None:
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.world_size = world_size
        self.rank = rank
        self.accumulate = accumulate
        self.order = order or self._uniform
        self.samples_per_step = batch_size * world_size * accumulate
        self.epoch = self.start = 0
        self._check()

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever it starts."""
        return self.num_samples // self.samples_per_step * self.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = self.epoch
        order = self.order(fold_in(self.seed, epoch))
        for batch in range(self.start, len(self)):
            step, micro_batch = divmod(batch, self.accumulate)
            slot = micro_batch * self.world_size + self.rank
            first = step * self.samples_per_step + slot * self.batch_size
            yield [(epoch, index) for index in order[first : first + self.batch_size].tolist()]

    def _uniform(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.num_samples, generator=generator)

    def _check(self) -> None:
        for name in ("batch_size", "world_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.rank < self.world_size:
            raise UserError(f"rank must be in [0, {self.world_size - 1}], got {self.rank}")
        if self.num_samples < self.samples_per_step:
            raise UserError(
                f"batch_size {self.batch_size} x {self.world_size} devices x accumulate {self.accumulate} "
                f"needs {self.samples_per_step} images a step, but the data has {self.num_samples}; "
                "lower batch_size"
            )


class TrainLoader:
    """Endless training data, one epoch per iteration, which can be stopped and resumed at any batch.

    The position is counted in batches handed out, not in batches that workers have prepared. An iteration
    that was left early, or follows ``load_state_dict``, goes on where the position is; after a whole epoch
    the next begins.

    Args:
        source: Samples by index.
        transform: Turns an image into the network's input and its crop.
        batch_size: Images per rank and micro-batch.
        seed: The run's seed.
        world_size: Number of ranks.
        rank: Of this process.
        num_workers: Processes that prepare batches; 0 prepares them here.
        accumulate: Micro-batches per optimiser step.
        pin_memory: Put batches into page-locked memory, for a GPU.

    Raises:
        UserError: If a number is out of range, or the source is smaller than one optimiser step.
    """

    def __init__(
        self,
        source: Dataset[Sample],
        transform: Transform,
        *,
        batch_size: int,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        num_workers: int = 0,
        accumulate: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self.source = source
        self.sampler = SlotSampler(
            num_samples(source),
            batch_size=batch_size,
            seed=seed,
            world_size=world_size,
            rank=rank,
            accumulate=accumulate,
            order=source.order if isinstance(source, ImageSource) else None,
        )
        check_workers(num_workers)
        self._loader = DataLoader(
            Transformed(source, transform, seed),
            batch_sampler=self.sampler,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=ignore_interrupts,
            generator=fold_in(seed),  # torch draws the workers' base seed; nothing here depends on it
        )

    @property
    def epoch(self) -> int:
        """The epoch of the last batch handed out."""
        return self.sampler.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; stay where we are if that is the present one."""
        if epoch != self.sampler.epoch:
            self.sampler.epoch, self.sampler.start = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """The position, and what it means something for."""
        return {"epoch": self.sampler.epoch, "batches": self.sampler.start, **self._meaning()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a stored position. Ranks and accumulation may be traded for each other between two steps.

        Raises:
            UserError: If the position belongs to other data, another seed or effective batch size, or lies
                within a step that is now divided otherwise.
        """
        for name in ("num_samples", "seed", "samples_per_step"):
            if state[name] != self._meaning()[name]:
                raise UserError(
                    f"the stored position in the data has {name} {state[name]}, this run has "
                    f"{self._meaning()[name]}; resume with the data, seed and batch size it began with"
                )
        step, micro_batch = divmod(state["batches"], state["accumulate"])
        if micro_batch and state["accumulate"] != self.sampler.accumulate:
            raise UserError(
                f"the stored position lies within a step of accumulate {state['accumulate']}, "
                f"got accumulate {self.sampler.accumulate}; resume with the same"
            )
        self.sampler.epoch = state["epoch"]
        self.sampler.start = step * self.sampler.accumulate + micro_batch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        sampler = self.sampler
        if sampler.start == len(sampler):
            sampler.epoch, sampler.start = sampler.epoch + 1, 0
        for batch in self._loader:
            sampler.start += 1
            yield batch

    def _meaning(self) -> dict[str, int]:
        names = ("num_samples", "seed", "samples_per_step", "accumulate")
        return {name: getattr(self.sampler, name) for name in names}


def eval_batches(
    source: Dataset[Sample], transform: Transform, *, batch_size: int, num_workers: int = 0
) -> Iterator[Batch]:
    """All samples once, in the order of their indices; the last batch may be smaller.

    Raises:
        UserError: If a number is out of range.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    check_workers(num_workers)
    keys = [(0, index) for index in range(num_samples(source))]
    yield from DataLoader(
        Transformed(source, transform, seed=0),
        batch_sampler=[keys[first : first + batch_size] for first in range(0, len(keys), batch_size)],
        num_workers=num_workers,
        collate_fn=collate,
        generator=fold_in(0),
    )


@dataclass(frozen=True, eq=False)
class Transformed(Dataset[Batch]):
    """Samples by (epoch, index), each transformed under random numbers of its own: (seed, epoch, index)."""

    source: Dataset[Sample]
    transform: Transform
    seed: int

    def __getitem__(self, key: Key) -> Batch:
        """One sample as a batch of one, without its stored image."""
        epoch, index = key
        sample = self.source[index]
        with seeded(self.seed, epoch, index):
            images, crops = self.transform(sample.image)
        labels = sample.labels if sample.label is None else torch.tensor(sample.label)
        return Batch(images, torch.tensor(sample.sample_id).expand(crops.shape[:-1]), crops, labels)


def collate(items: list[Batch]) -> Batch:
    """Stack samples into a batch, views by view; all have labels or none."""
    images = [item.images for item in items]
    has_views = isinstance(images[0], Views)
    stack = stack_view_major if has_views else torch.stack
    labels = [item.labels for item in items if item.labels is not None]
    return Batch(
        join_views(images) if has_views else torch.stack(images),
        stack([item.sample_ids for item in items]),
        stack([item.crops for item in items]),
        torch.stack(labels) if labels else None,
    )


def ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches the workers as well; whether to stop, and when, is for the training to decide."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def num_samples(source: Dataset[Sample]) -> int:
    """The length of a source; torch's ``Dataset`` declares none."""
    return len(source)  # type: ignore[arg-type]


def check_workers(num_workers: int) -> None:
    """Raise ``UserError`` for a negative number."""
    if num_workers < 0:
        raise UserError(f"num_workers must be at least 0, got {num_workers}")
