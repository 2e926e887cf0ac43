"""``dppmask features``: the embeddings of a data set."""

from pathlib import Path

from dppmask.commands.parser import call_with_options
from dppmask.data.base import ImageSource, Split
from dppmask.evaluation.base import Precision
from dppmask.evaluation.extract import extract
from dppmask.evaluation.features import Pooling


def main(arguments: list[str]) -> str:
    """Extract; the file goes to stdout."""
    return str(call_with_options("dppmask features", features, arguments))


def features(
    *,
    run: str,
    data: ImageSource,
    out: str,
    split: Split = "train",
    pooling: Pooling = "cls",
    blocks: int = 1,
    image_size: int | tuple[int, int] | None = None,
    device: str = "auto",
    batch_size: int = 64,
    num_workers: int = 0,
    precision: Precision = "32",
) -> Path:
    """Write one embedding per image, with labels and file names, in the order of the data.

    Args:
        run: A run, a folder with an encoder, a file of official MAE or timm weights, or a timm name.
        data: The images.
        out: The file to write: *.npz or *.safetensors.
        split: Which part of the data; an unlabelled folder is all "train" unless some was held out.
        pooling: The class token, the mean of the patch tokens, or both side by side.
        blocks: How many of the last blocks contribute, side by side.
        image_size: Size to encode, if not the one trained on.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ….
        batch_size: Images per forward pass.
        num_workers: Loader processes.
        precision: "32", or "bf16" for autocast.
    """
    return extract(
        run,
        data,
        out,
        split=split,
        pooling=pooling,
        blocks=blocks,
        image_size=image_size,
        device=device,
        batch_size=batch_size,
        num_workers=num_workers,
        precision=precision,
    )
