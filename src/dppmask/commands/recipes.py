"""``dppmask recipes``: the shipped YAML files."""

from dppmask.errors import UserError
from dppmask.recipes import find_recipe, headline, shipped_recipes


def main(arguments: list[str]) -> str:
    """List every recipe with its first line, or print the one that is named."""
    if arguments in (["--help"], ["-h"]):
        return (
            "usage: dppmask recipes [NAME]\n\nLists the shipped recipes, or prints one, as --config finds it."
        )
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise UserError(f"expected the name of one recipe or nothing, got {' '.join(arguments)!r}")
    if arguments:
        return find_recipe(arguments[0], option="").read_text().rstrip()
    recipes = shipped_recipes()
    width = max(map(len, recipes)) + 2
    return "\n".join(f"{name:<{width}}{headline(path)}" for name, path in recipes.items())
