"""``dppmask attention``: what the class token looks at."""

from dppmask.commands.parser import call_with_options
from dppmask.figures.attention_maps import draw_attention


def main(arguments: list[str]) -> str:
    """Draw; the picture's path goes to stdout."""
    return str(call_with_options("dppmask attention", draw_attention, arguments))
