"""Pictures of a run while it trains: its masks and its curves, in ``figures/`` of the run folder."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from dppmask.figures.curves import draw_curves
from dppmask.figures.mask_gallery import Gallery, draw_gallery, make_gallery
from dppmask.figures.style import save_figure
from dppmask.masks import RandomMask
from dppmask.models.encoder import Encoder
from dppmask.training.callbacks import read_metrics
from dppmask.training.fitting import METRICS
from dppmask.training.module import Pretraining
from dppmask.views import whole_images

NUM_IMAGES = 6


class LivePictures(Callback):
    """Draws ``masks.png`` and ``curves.png`` every few minutes and at the end.

    The images are those of the first batch it sees and the noise is always the same: what changes from one
    picture to the next is what the strategy reads. Nothing random is drawn from the training's generators.

    Args:
        run: The run folder.
        interval: Seconds between two pictures.
    """

    def __init__(self, run: Path, *, interval: float = 120.0) -> None:
        self.folder = run / "figures"
        self.run = run
        self.interval = interval
        self._images: Tensor | None = None
        self._drawn_at = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._images is None:
            self._images = whole_images(batch.images)[:NUM_IMAGES].detach().clone()
        if time.perf_counter() - self._drawn_at >= self.interval:
            self.draw(trainer, module)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self.draw(trainer, module)

    def draw(self, trainer: Trainer, module: Pretraining) -> None:
        """Write both pictures; the masks only where this process holds the whole encoder."""
        self._drawn_at = time.perf_counter()
        if not trainer.is_global_zero or self._images is None:
            return
        self.folder.mkdir(exist_ok=True)
        metrics = self.run / METRICS
        if metrics.exists() and (lines := read_metrics(metrics)):
            save_figure(draw_curves({self.run.name: lines}), self.folder / "curves.png")
        encoder = module.model.encoder
        if module.device_mesh is None and isinstance(encoder, Encoder):
            gallery = self._gallery(module, encoder, self._images)
            save_figure(draw_gallery(gallery), self.folder / "masks.png")

    def _gallery(self, module: Pretraining, encoder: Encoder, images: Tensor) -> Gallery:
        """The run's strategy beside random masks, at the middle of its ratios."""
        strategy, ratio = module.strategy, module.ratio
        return make_gallery(
            images,
            [strategy] if type(strategy) is RandomMask else [RandomMask(), strategy],
            grid=encoder.grid,
            mask_ratio=(ratio.low + ratio.high) / 2,
            encoder=encoder,
            note=f"after {module.global_step} optimiser steps",
            progress=module.progress,
        )
