"""``dppmask covisibility``: which patches masks show together."""

from dppmask.commands.parser import call_with_options
from dppmask.figures.co_visibility import draw_co_visibility


def main(arguments: list[str]) -> str:
    """Draw; the picture's path and a line for each strategy go to stdout."""
    path, maps = call_with_options("dppmask covisibility", draw_co_visibility, arguments)
    return "\n".join([str(path), *maps.summary()])
