"""``dppmask variants``: images and their background variants, side by side."""

from dppmask.commands.parser import call_with_options
from dppmask.figures.background_examples import draw_variants


def main(arguments: list[str]) -> str:
    """Draw; the picture's path goes to stdout."""
    return str(call_with_options("dppmask variants", draw_variants, arguments))
