"""A random order of rows that keeps together what is read together."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

RUN = 64  # rows that an order takes from one lane before it turns to the next


def blockwise_order(ends: np.ndarray, *, window: int, lanes: int, generator: torch.Generator) -> Tensor:
    """A permutation of the rows of consecutive blocks, int64 ``[ends[-1]]``.

    The blocks are shuffled and dealt to lanes. Within a lane, rows trade places with those of neighbouring
    blocks, about ``window / lanes`` rows at a time. Then the lanes are read in turn, ``RUN`` rows from each.

    So no more than about ``window`` rows and a block for each lane are in use at any time. And since slots of
    a step follow each other in this order, no worker reads a block that another reads, but at the end of an
    epoch, where the batch size is a multiple of ``RUN``, and ``lanes`` one of ``ranks * workers * batch_size
    / RUN``. Nothing but the speed depends on that.

    Args:
        ends: The row after the last one of each block, ascending.
        window: Rows that are mixed at a time.
        lanes: How many blocks are read at a time, at least.
        generator: The order is a function of it and of the other arguments.
    """
    blocks = np.split(np.arange(ends[-1]), ends[:-1])
    shuffled = torch.randperm(len(blocks), generator=generator).tolist()
    dealt = [[blocks[i] for i in shuffled[lane::lanes]] for lane in range(min(lanes, len(blocks)))]
    mixed = [_mix(lane, window / lanes, generator) for lane in dealt]
    runs = [np.split(lane, range(RUN, len(lane), RUN)) for lane in mixed]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*runs))
    return torch.from_numpy(np.concatenate([run for run in turns if run is not None]))


def _mix(blocks: Sequence[np.ndarray], window: float, generator: torch.Generator) -> np.ndarray:
    """The rows of blocks, permuted among as many neighbouring blocks as hold ``window`` rows."""
    mixed: list[np.ndarray] = []
    together: list[np.ndarray] = []
    for number, block in enumerate(blocks, start=1):
        together.append(block)
        if sum(map(len, together)) >= window or number == len(blocks):
            rows = np.concatenate(together)
            mixed.append(rows[torch.randperm(len(rows), generator=generator).numpy()])
            together = []
    return np.concatenate(mixed)
