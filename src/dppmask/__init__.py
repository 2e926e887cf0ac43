"""Masked image modelling with determinantal point processes.

The names below are imported at first use, so ``import dppmask`` costs nothing; the masks need torch alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dppmask.data.folder import ImageFolder
    from dppmask.data.scenes import Scenes
    from dppmask.evaluation.run import evaluate
    from dppmask.masks import (
        AttMask,
        BlockMask,
        Coarse,
        DPPMask,
        KDPPMask,
        MaskContext,
        MaskRatio,
        RandomMask,
        take,
    )
    from dppmask.models.checkpoint import load_encoder, load_model
    from dppmask.models.mae import MAE
    from dppmask.training.run import pretrain

__version__ = "0.1.0"

__all__ = [
    "MAE",
    "AttMask",
    "BlockMask",
    "Coarse",
    "DPPMask",
    "ImageFolder",
    "KDPPMask",
    "MaskContext",
    "MaskRatio",
    "RandomMask",
    "Scenes",
    "__version__",
    "evaluate",
    "load_encoder",
    "load_model",
    "pretrain",
    "take",
]

_MODULES = {
    "MAE": "dppmask.models.mae",
    "AttMask": "dppmask.masks",
    "BlockMask": "dppmask.masks",
    "Coarse": "dppmask.masks",
    "DPPMask": "dppmask.masks",
    "ImageFolder": "dppmask.data.folder",
    "KDPPMask": "dppmask.masks",
    "MaskContext": "dppmask.masks",
    "MaskRatio": "dppmask.masks",
    "RandomMask": "dppmask.masks",
    "Scenes": "dppmask.data.scenes",
    "evaluate": "dppmask.evaluation.run",
    "load_encoder": "dppmask.models.checkpoint",
    "load_model": "dppmask.models.checkpoint",
    "pretrain": "dppmask.training.run",
    "take": "dppmask.masks",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
