"""``dppmask evaluate``: one protocol, one JSON line."""

import json
from typing import Any

from dppmask.commands.parser import call_with_options
from dppmask.data.base import ImageSource
from dppmask.evaluation import ranks
from dppmask.evaluation import run as evaluation
from dppmask.evaluation.base import Precision, Protocol


def main(arguments: list[str]) -> str | None:
    """Evaluate; the record goes to stdout as one line, once however many processes evaluate."""
    record = call_with_options("dppmask evaluate", evaluate, arguments)
    return json.dumps(record) if ranks.is_first() else None


def evaluate(
    *,
    protocol: Protocol,
    data: ImageSource,
    run: str | None = None,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    batch_size: int = 64,
    num_workers: int = 0,
    precision: Precision = "32",
) -> dict[str, Any]:
    """Score an encoder, or masks, and print one JSON line; it is also appended to results.jsonl of the run.

    Args:
        protocol: How.
        data: On which images.
        run: A run, a folder with an encoder, a file of official MAE or timm weights, or a timm name. Mask
            statistics on pixels need none.
        seed: Of whatever is random in the protocol.
        image_size: Size to encode, if not the one trained on.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ….
        devices: How many on each node; images are divided among them, no number changes.
        num_nodes: Number of nodes.
        batch_size: Images per forward pass.
        num_workers: Loader processes.
        precision: "32", or "bf16" for autocast.
    """
    return evaluation.evaluate(
        run,
        protocol,
        data,
        seed=seed,
        image_size=image_size,
        device=device,
        devices=devices,
        num_nodes=num_nodes,
        batch_size=batch_size,
        num_workers=num_workers,
        precision=precision,
    )
