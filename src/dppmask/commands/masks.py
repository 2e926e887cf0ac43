"""``dppmask masks``: strategies side by side."""

from dppmask.commands.parser import OptionParser
from dppmask.figures.mask_gallery import draw_masks


def main(arguments: list[str]) -> str:
    """Draw; the picture's path goes to stdout."""
    return str(draw_masks(**OptionParser("dppmask masks", draw_masks).parse(arguments)))
