"""Lists of classes: one folder name a line, in a file of the user's or of the package."""

from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from dppmask.errors import UserError, nearest


def read_class_list(name: str) -> list[str]:
    """The classes of a list, sorted: the label of a class is its position.

    Blank lines do not count, nor does what follows a ``#`` at the start of a line or behind a space.

    Args:
        name: A file, or the name of a shipped list: "imagenet100".

    Raises:
        UserError: If there is no such list, or it names a class twice, a path, or fewer than two classes.
    """
    path = _find(name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"classes must name a text file with one class folder a line: {path}: {error}"
        ) from None
    classes = sorted(stripped for line in lines if (stripped := f" {line}".partition(" #")[0].strip()))
    for one, following in pairwise(classes):
        if one == following:
            raise UserError(f"{path} names the class {one} twice")
    for name in classes:
        if "/" in name or name.startswith("."):
            raise UserError(f"{path} must hold plain folder names, one a line, but has {name!r}")
    if len(classes) < 2:
        raise UserError(f"{path} must name at least 2 classes, but has {len(classes)}")
    return classes


def shipped_lists() -> dict[str, Path]:
    """Name → file."""
    folder = Path(str(files("dppmask"))) / "data" / "class_lists"
    return {path.stem: path for path in sorted(folder.glob("*.txt"))}


def _find(name: str) -> Path:
    path, shipped = Path(name).expanduser(), shipped_lists()
    if path.is_file():
        return path
    if name not in shipped:
        raise UserError(
            f"classes must be a file or a shipped list, but {name} is neither; {nearest(name, shipped)}"
        )
    return shipped[name]
