"""``dppmask similarity``: which patches an encoder takes for alike."""

from dppmask.commands.parser import call_with_options
from dppmask.figures.token_similarity import draw_similarity


def main(arguments: list[str]) -> str:
    """Draw; the picture's path goes to stdout."""
    return str(call_with_options("dppmask similarity", draw_similarity, arguments))
