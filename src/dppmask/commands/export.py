"""``dppmask export``: an encoder on its own."""

import shutil
from pathlib import Path

from dppmask.commands.parser import call_with_options
from dppmask.errors import UserError
from dppmask.models.checkpoint import load_encoder, save_encoder


def main(arguments: list[str]) -> str:
    """Export; the folder goes to stdout."""
    return str(call_with_options("dppmask export", export, arguments))


def export(
    *, run: str, out: str, image_size: int | tuple[int, int] | None = None, num_heads: int | None = None
) -> Path:
    """Write an encoder as safetensors and a config that timm alone loads.

    ``timm.create_model("local-dir:OUT", pretrained=True)`` is then the same network.

    Args:
        run: A run, a folder with an encoder, a file of official MAE or timm weights, or a timm name.
        out: The folder to write; must not exist yet, or be empty.
        image_size: Size to encode, if not the one trained on.
        num_heads: Attention heads, for files of a width that no published model has.
    """
    folder = Path(out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"--out {out} exists already; choose another folder")
    encoder = load_encoder(run, image_size=image_size, num_heads=num_heads)
    try:
        save_encoder(encoder, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half an export; there was nothing else in it
        raise
    return folder
