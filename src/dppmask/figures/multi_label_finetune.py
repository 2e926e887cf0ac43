"""Average precision label by label after fine-tuning, drawn as that of the linear protocol."""

from dppmask.figures.multi_label import draw

__all__ = ["draw"]
