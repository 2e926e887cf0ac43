"""Several processes, one result: each encodes a share of the images, then all know the features of all.

Every process runs the whole protocol on equal numbers. What costs most, encoding, is divided; what is left,
such as fitting a linear head to features, they all do alike. Without a process group there is one rank.
"""

import atexit
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from dppmask.errors import UserError

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  # features are gathered in host memory


def num_ranks() -> int:
    """W, the number of processes that evaluate together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0 to W - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process reports and writes for all."""
    return rank() == 0


@contextmanager
def joined(device: str, devices: int, num_nodes: int) -> Iterator[str]:
    """Run a block on as many processes as asked for; each gets the name of its own device.

    The processes are those of torchrun or SLURM; without either, the running script is started again for
    every further device, as Lightning does for training.

    Args:
        device: A torch device; its kind decides where all of them compute.
        devices: Processes per node.
        num_nodes: Number of nodes.

    Raises:
        UserError: If a number is out of range, or there are not as many devices.
    """
    for name, number in (("devices", devices), ("num_nodes", num_nodes)):
        if number < 1:
            raise UserError(f"{name} must be at least 1, got {number}")
    if devices * num_nodes == 1:
        yield device
        return
    from lightning.fabric import Fabric  # seconds to import, and most evaluations need one process
    from lightning.fabric.strategies import DDPStrategy
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from dppmask.training.trainer import quiet

    kind = torch.device(device).type
    newcomer = not dist.is_initialized()
    try:
        with quiet(logging.NullHandler()):
            strategy = DDPStrategy(process_group_backend=BACKENDS.get(kind))
            fabric = Fabric(accelerator=kind, devices=devices, num_nodes=num_nodes, strategy=strategy)
            fabric.launch()
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot evaluate on {num_nodes} x {devices} {kind} devices: {' '.join(str(error).split())}"
        ) from None
    if newcomer:
        atexit.register(dist.destroy_process_group)  # later calls go on with the same processes
    yield str(fabric.device)


def share_of(number: int, per_batch: int) -> range:
    """The items of this rank: whole batches, in order, so that every item is encoded in the same company.

    >>> share_of(10, 4)  # one rank has them all
    range(0, 10)
    """
    batches = -(-number // per_batch)
    bounds = [min(batches * part // num_ranks() * per_batch, number) for part in (rank(), rank() + 1)]
    return range(*bounds)


def agreed(here: bool) -> bool:
    """Whether something holds on every rank."""
    if num_ranks() == 1:
        return here
    flag = torch.tensor(int(here))
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def joined_rows(rows: Tensor | None) -> Tensor | None:
    """The rows ``[n_r, …]`` of all ranks one below the other, on the CPU.

    A rank without rows may pass None, whatever the others have; the result is None if all do.
    """
    if num_ranks() == 1:
        return rows
    kinds: list[tuple[torch.dtype, torch.Size] | None] = [None] * num_ranks()
    dist.all_gather_object(kinds, None if rows is None else (rows.dtype, rows.shape))
    known = [kind for kind in kinds if kind is not None]
    if not known:
        return None
    dtype, shape = known[0][0], known[0][1][1:]
    lengths = [0 if kind is None else kind[1][0] for kind in kinds]
    mine = torch.zeros(max(lengths), *shape, dtype=dtype)  # collectives want equal shapes
    if rows is not None:
        mine[: len(rows)] = rows.cpu()
    gathered = [torch.empty_like(mine) for _ in lengths]
    dist.all_gather(gathered, mine)
    return torch.cat([part[:length] for part, length in zip(gathered, lengths, strict=True)])
