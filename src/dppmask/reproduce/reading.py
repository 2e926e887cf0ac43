"""YAML files of experiments and scales: which are shipped, and how they are read.

They are read strictly: an error names the unknown or missing key.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from dppmask.errors import UserError, nearest
from dppmask.recipes import shipped_recipes

EXPERIMENTS = "paper/"


def experiment_names() -> list[str]:
    """The shipped experiments, tables first."""
    names = [name.removeprefix(EXPERIMENTS) for name in shipped_recipes() if name.startswith(EXPERIMENTS)]
    return sorted(
        (name for name in names if "/" not in name), key=lambda name: (not name.startswith("table"), name)
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """The top level of a file.

    Raises:
        UserError: If it is no YAML, or no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping, got {type(content).__name__}")
    return content


def check_keys(
    content: Any, where: str, *, required: Collection[str] = (), optional: Collection[str] = ()
) -> dict[str, Any]:
    """The same mapping, with nothing missing and nothing that is not known.

    Raises:
        UserError: Naming the place and the key.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where} must be a mapping, got {content!r}")
    known = {*required, *optional}
    for key in content:
        if key not in known:
            raise UserError(f"{where} has an unknown key {key}; {nearest(str(key), known)}")
    for key in required:
        if key not in content:
            raise UserError(f"{where} needs {key}")
    return dict(content)
