"""Files that are either the old one or the new one, whatever happens in between."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from dppmask.errors import DISK_FULL, UserError

TEMPORARY = ".writing-"  # start of the name of every unfinished file


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file so that a reader, or a crash at any moment, sees the whole old or the whole new content.

    The bytes go to a temporary file in the same folder, which is synced and renamed over ``path``; then the
    folder is synced. If the block raises, the temporary file goes and ``path`` stays as it was.

    Raises:
        UserError: If the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with _disk_full_named(path), temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process was writing."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file."""
    with replace_file(path) as handle:
        handle.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """Replace a YAML file, keys in the order given."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def append_line(path: Path, line: str) -> None:
    """Add one line to a text file.

    Raises:
        UserError: If the disk is full.
    """
    with _disk_full_named(path), path.open("a") as handle:
        handle.write(line + "\n")


@contextmanager
def _disk_full_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's writer turns the OSError into a RuntimeError
        if not _is_disk_full(error):
            raise
        kept = "the previous file is intact" if path.exists() else "nothing was written"
        raise UserError(
            f"cannot write {path}: the disk is full ({kept}); free some space and try again"
        ) from None


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
