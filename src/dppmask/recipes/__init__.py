"""The shipped YAML files, and how a name becomes one of them."""

from importlib.resources import files
from pathlib import Path

from dppmask.errors import UserError, nearest


def shipped_recipes() -> dict[str, Path]:
    """Every recipe of the package: "methods/mae" → its file."""
    root = Path(str(files("dppmask"))) / "recipes"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find_recipe(name: str, *, option: str = "--config ") -> Path:
    """The file that ``--config NAME`` means: a path, or a shipped recipe with or without its folder.

    Args:
        name: The name.
        option: What stood before it, for error messages.

    Raises:
        UserError: If there is no such file or recipe, or two recipes share the name.
    """
    if Path(name).is_file():
        return Path(name)
    recipes = shipped_recipes()
    wanted = name.removesuffix(".yaml").removeprefix("recipes/")
    found = [full for full in recipes if wanted in (full, full.rpartition("/")[2])]
    if len(found) == 1:
        return recipes[found[0]]
    if found:
        raise UserError(f"{option}{name} may mean {' or '.join(found)}; write the folder too")
    known = [*recipes, *(full.rpartition("/")[2] for full in recipes)]
    raise UserError(f"{option}{name} is neither a file nor a shipped recipe; {nearest(name, known)}")


def headline(path: Path) -> str:
    """What a recipe says about itself in its first line."""
    return path.read_text().partition("\n")[0].removeprefix("#").strip().partition(" — ")[2]
