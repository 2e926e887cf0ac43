"""What a run was made with: command, commit, versions, hardware."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dppmask.files import write_json

PACKAGES = ("dppmask", "torch", "torchvision", "timm", "lightning", "numpy")


def describe_environment() -> dict[str, Any]:
    """Plain data for ``environment.json``: every reported number can be traced to it."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": typed_command(),
        "commit": commit(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "cpu": _cpu_name(),
            "cpu_cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda,
        },
    }


def typed_command() -> str:
    """The command line; one of ``dppmask`` as one types it anywhere, any other as it was started here."""
    program = Path(sys.argv[0])
    is_ours = program.name == "dppmask" or program.parts[-2:] == ("dppmask", "__main__.py")
    return shlex.join(["dppmask", *sys.argv[1:]] if is_ours else sys.orig_argv)


def record_environment(path: Path) -> None:
    """Write ``environment.json``; when the run goes on, add to its list of ``resumed``."""
    now = describe_environment()
    if path.exists():
        first = json.loads(path.read_text())
        now = {**first, "resumed": [*first["resumed"], now]}
    else:
        now["resumed"] = []
    write_json(path, now)


def commit(folder: Path) -> str | None:
    """The commit of the checkout that holds ``folder``, with ``+changes`` where the folder differs from it.

    What differs outside, such as results that were just written, does not count. None where the folder is
    tracked by no checkout (an installed wheel) or git is missing.
    """
    try:
        if not _git(folder, "ls-files", "."):
            return None
        return _git(folder, "rev-parse", "HEAD") + (
            "+changes" if _git(folder, "diff", "--stat", "HEAD", "--", ".") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def package_version(package: str) -> str | None:
    """The version that is installed, by the name it is installed under; None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
