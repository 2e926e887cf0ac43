"""``evaluate``: one protocol on one subject, as one record with everything needed to repeat it."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from dppmask import specs
from dppmask.data.base import ImageSource
from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation import ranks
from dppmask.evaluation.base import Compute, Precision, Protocol, Subject
from dppmask.evaluation.features import weights_hash
from dppmask.files import append_line
from dppmask.models.checkpoint import load_encoder
from dppmask.models.encoder import Encoder
from dppmask.training.environment import describe_environment

RESULTS = "results.jsonl"
CACHE = "features"


def evaluate(
    run: str | Path | Encoder | None,
    protocol: Protocol,
    data: ImageSource | None = None,
    *,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    batch_size: int = 64,
    num_workers: int = 0,
    precision: Precision = "32",
) -> dict[str, Any]:
    """Score an encoder, or masks; the record, one JSON line, is also appended to results.jsonl of the run.

    Equal arguments give equal numbers (but for ``timings`` and ``date``). Features are cached in the run
    folder.

    Args:
        run: A run, a folder with an encoder, a file of official MAE or timm weights, or a timm name. Mask
            statistics on pixels need none.
        protocol: How.
        data: On which images; a source whose parts are opened with ``split``. By default the built-in scenes,
            with one object or with many, as suits the protocol; stderr says so.
        seed: Of whatever is random in the protocol.
        image_size: Size to encode, if not the one trained on.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ….
        devices: How many on each node; images are divided among them, no number changes.
        num_nodes: Number of nodes.
        batch_size: Images per forward pass.
        num_workers: Loader processes, for each device.
        precision: "32", or "bf16" for autocast.

    Note:
        In Python, ``run`` may also be an :class:`~dppmask.models.encoder.Encoder`, which has its size, and
        stays where it is if ``device`` is "auto".

    Returns:
        The record: protocol, data, subject, seed, metrics, standard errors, baselines, tables,
        timings, notes, and command, commit, versions, hardware.

    Raises:
        UserError: If the subject, the protocol and the data do not fit together.
    """
    data = built_in_scenes(protocol) if data is None else data
    with ranks.joined(choose_device(device, run), devices, num_nodes) as own_device:
        compute = Compute(own_device, batch_size, num_workers, precision)
        subject = open_subject(run, compute, image_size=image_size)
        result = protocol.run(subject, data, seed=seed)
        used = {"device": own_device, "ranks": ranks.num_ranks()}
        record = {
            **dataclasses.asdict(result),
            "settings": specs.describe(protocol),
            "data": specs.describe(data),
            "subject": subject.description,
            "seed": seed,
            "compute": {**used, "batch_size": batch_size, "precision": precision},
            **describe_environment(),
        }
        line = json.dumps(record, allow_nan=False)
        if subject.run is not None and ranks.is_first():
            append_line(subject.run / RESULTS, line)
    return json.loads(line)


def built_in_scenes(protocol: Protocol) -> ImageSource:
    """The scenes that suit a protocol, for those who have no data yet."""
    print(f"no data given: evaluating on Scenes, task {protocol.scenes}", file=sys.stderr, flush=True)
    return Scenes(task=protocol.scenes)


def open_subject(
    source: str | Path | Encoder | None,
    compute: Compute,
    *,
    image_size: int | tuple[int, int] | None = None,
) -> Subject:
    """What is to be evaluated; features of a run are cached in its folder.

    Args:
        source: See :func:`evaluate`.
        compute: Where to encode.
        image_size: See :func:`evaluate`.

    Raises:
        UserError: If the source cannot be loaded, or has its own image size.
    """
    if isinstance(source, Encoder) or source is None:
        if image_size is not None:
            raise UserError(
                "image_size changes an encoder while it is loaded; pass a run folder or file instead"
            )
        return Subject(source, None, _describe(source, None), compute)
    encoder = load_encoder(source, image_size=image_size)
    run = Path(source) if is_run(source) else None
    if run is not None:
        compute = dataclasses.replace(compute, cache=run / CACHE)
    return Subject(encoder, run, _describe(encoder, str(source)), compute)


def is_run(source: str | Path) -> bool:
    """Whether a source is a run folder."""
    return (Path(source) / "config.yaml").is_file()


def choose_device(device: str, source: object = None) -> str:
    """The device of a name, where "auto" is where an encoder is already, else a GPU if there is one.

    Raises:
        UserError: If there is no such device.
    """
    if device == "auto":
        if isinstance(source, Encoder):
            return str(next(source.parameters()).device)
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device must be 'auto', 'cpu' or 'cuda', got {device!r} ({_first_line(error)})"
        ) from None
    return device


def _describe(encoder: Encoder | None, source: str | None) -> dict[str, Any]:
    if encoder is None:
        return {"source": None}
    return {"source": source, "encoder": encoder.arguments(), "weights": weights_hash(encoder)}


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
