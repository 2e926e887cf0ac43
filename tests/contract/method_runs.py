"""Every strategy with every method, as small trainings; used by test_methods.py and its two ranks."""

from functools import partial
from typing import Any

from test_strategies import STRATEGIES

from dppmask.data.scenes import Scenes
from dppmask.masks import MaskStrategy
from dppmask.models.ibot import IBOT
from dppmask.models.mae import MAE

METHODS = {
    "MAE": partial(MAE, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2, teacher="ema"),
    "IBOT": partial(
        IBOT,
        out_dim=16,
        head_hidden_dim=16,
        head_bottleneck_dim=8,
        num_local_crops=1,
        local_size=12,
        warmup_teacher_temp_epochs=1,
    ),
}

PAIRS = [(method, strategy) for method in METHODS for strategy in STRATEGIES]


def name_of(method: str, strategy: MaskStrategy) -> str:
    """Of a pair, for test ids and folders."""
    return f"{method} {' '.join(repr(strategy).split())}"


def options_of(method: str, strategy: MaskStrategy) -> dict[str, Any]:
    """Four steps of two images on a 6 x 6 grid; ragged and partly whole where the method allows it."""
    ragged = {"mask_ratio": (0.2, 0.6), "mask_probability": 0.7}
    return {
        "data": Scenes(size=32, train_size=4, val_size=2),
        "method": METHODS[method],
        "mask": strategy,
        "backbone": "test_vit",
        "backbone_args": {"depth": 1},
        "image_size": 24,
        "patch_size": 4,
        "epochs": 2,
        "batch_size": 2,
        "base_lr": 0.1,
        "warmup_epochs": 0,
        "num_workers": 0,
        "log_every": 1,
        "save_last_every": 1,
        "accelerator": "cpu",
        **(ragged if method == "IBOT" else {}),
    }
