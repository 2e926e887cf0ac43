"""A pre-training as a command of its own, which starts a process per device: by itself, torchrun or srun."""

import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dppmask.errors import INTERRUPTED, UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"

_running: list[subprocess.Popen[str]] = []


def launch(command: Sequence[str], environment: Mapping[str, str] | None = None) -> bool:
    """Run a command to its end; False if it was told to stop before, and can go on.

    SIGTERM is passed on to it. What it says is said on standard error. It inherits the lock of the work
    folder: nobody takes up its run while it still saves.

    Args:
        command: The program and its arguments.
        environment: Its environment variables; None = those of this process.

    Raises:
        UserError: If it fails, with the last that it said.
    """
    told: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        told.append(number)
        stop_launched()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            close_fds=False,  # the lock stays open in it
        ) as process:
            _running.append(process)
            if told:  # between the two lines above
                process.terminate()
            said = _repeat(process.stdout or ())
    finally:
        _running.clear()
        signal.signal(signal.SIGTERM, before)
    if told or process.returncode == INTERRUPTED:
        return False
    if process.returncode:
        raise UserError(f"the launched training ended with code {process.returncode}: {said}")
    return True


def stop_launched() -> None:
    """Tell what this process has launched to save and end, and do not wait for it."""
    for process in _running:
        process.terminate()


def _repeat(lines: Iterable[str]) -> str:
    """Say all of it again; the last message of ``dppmask``, or else the last line, is given back."""
    said = "nothing was said"
    for line in lines:
        print(line, end="", file=sys.stderr, flush=True)
        ours = line.startswith("dppmask ")
        if ours or (line.strip() and not said.startswith("dppmask ")):
            said = line.strip()
    return said
