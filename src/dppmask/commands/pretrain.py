"""``dppmask pretrain``: from images to a run folder."""

import contextlib
import sys
from pathlib import Path

from dppmask.commands.live import LivePictures
from dppmask.commands.parser import OptionParser
from dppmask.training.run import pretrain
from dppmask.training.trainer import is_first_process


def main(arguments: list[str]) -> str | None:
    """Train; the run folder goes to stdout, once however many processes train.

    Raises:
        KeyboardInterrupt: If a signal stopped the training early.
    """
    options = OptionParser("dppmask pretrain", pretrain, skip={"callbacks"}).parse(arguments)
    with contextlib.redirect_stdout(sys.stderr):
        result = pretrain(**options, callbacks=[LivePictures(Path(options["run"]))])
    if not result.finished:
        raise KeyboardInterrupt(
            f"stopped early and saved; dppmask pretrain --run {result.path} --resume goes on"
        )
    return str(result.path) if is_first_process() else None
