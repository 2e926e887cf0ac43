"""Training a whole classifier on labelled images: what protocols that fine-tune are made of.

The loop is imported at first use: Lightning takes seconds, and most evaluations train no encoder.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dppmask.evaluation.supervised.settings import FineTuning

if TYPE_CHECKING:
    from dppmask.evaluation.supervised.loop import FineTuned, fine_tune, fine_tune_transform_of

__all__ = ["FineTuned", "FineTuning", "fine_tune", "fine_tune_transform_of"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.loop"), name)
