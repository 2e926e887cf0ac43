"""``dppmask masks``: strategies side by side."""

from dppmask.commands.parser import call_with_options
from dppmask.figures.mask_gallery import draw_masks


def main(arguments: list[str]) -> str:
    """Draw; the picture's path goes to stdout."""
    return str(call_with_options("dppmask masks", draw_masks, arguments))
