"""What is measured: the device, the shapes and how often."""

from dataclasses import dataclass
from typing import Any

import torch

from dppmask.bench.arithmetic import Shape
from dppmask.bench.step_arithmetic import MAESize, mae_size
from dppmask.masks import num_masked_for
from dppmask.models.encoder import Encoder
from dppmask.models.ibot import IBOT
from dppmask.models.mae import MAE

MASK_BATCH = {"cpu": 64, "cuda": 256}
STEP_BATCH = {"cpu": 4, "cuda": 256}
FEATURE_BATCH = {"cpu": 8, "cuda": 256}
IBOT_BATCH = {"cpu": 2, "cuda": 64}
LIMIT = 30.0  # seconds for what is timed in turns


@dataclass(frozen=True)
class Settings:
    """One run of the benchmark.

    Attributes:
        device: Where ours runs.
        backbones: timm names of the encoders; the first decides the size of the features.
        batch_sizes: Images per batch; empty = what suits the device.
        mask_ratio: Share of hidden patches.
        image_size: Side in pixels, or (height, width).
        patch_size: Side of a patch in pixels.
        repeats: Timings per number.
        quick: Small sizes and few repeats: to see that it runs.
    """

    device: torch.device
    backbones: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    mask_ratio: float
    image_size: int | tuple[int, int]
    patch_size: int
    repeats: int
    quick: bool

    @property
    def rounds(self) -> int:
        """Timings per number, at most two if it only has to run."""
        return min(self.repeats, 2) if self.quick else self.repeats

    @property
    def limit(self) -> float:
        """Seconds for what is timed in turns."""
        return LIMIT / 10 if self.quick else LIMIT

    def mask_batches(self) -> tuple[int, ...]:
        """Batches in which masks are timed alone."""
        return self.batch_sizes or ((8,) if self.quick else (MASK_BATCH[self.device.type],))

    def step_batches(self) -> tuple[int, ...]:
        """Batches in which training steps are timed."""
        return self.batch_sizes or ((2,) if self.quick else (STEP_BATCH[self.device.type],))

    def ibot_batches(self) -> tuple[int, ...]:
        """Batches in which steps of iBOT are timed: each image is seen in a dozen crops."""
        return self.batch_sizes or ((1,) if self.quick else (IBOT_BATCH[self.device.type],))

    def feature_batches(self) -> tuple[int, ...]:
        """Batches in which features are extracted."""
        return self.batch_sizes or ((2,) if self.quick else (FEATURE_BATCH[self.device.type],))

    @property
    def warmup(self) -> int:
        """Untimed calls before."""
        return 1 if self.quick else 2

    @property
    def decoder(self) -> dict[str, Any]:
        """Arguments of the MAE: its own decoder, or a tiny one."""
        tiny = {"decoder_embed_dim": 64, "decoder_depth": 1, "decoder_num_heads": 2}
        return tiny if self.quick else {}

    def model(self, backbone: str) -> MAE:
        """A new model for the step.

        Raises:
            UserError: If the architecture or a size does not fit.
        """
        return MAE(self.encoder(backbone), **self.decoder)

    def encoder(self, backbone: str) -> Encoder:
        """A new encoder.

        Raises:
            UserError: If the architecture or a size does not fit.
        """
        return Encoder(backbone, image_size=self.image_size, patch_size=self.patch_size)

    def ibot(self, backbone: str) -> IBOT:
        """A new iBOT for the step, with local crops of 3/7 of the image's side (96 of 224 pixels).

        Raises:
            UserError: If the architecture or a size does not fit.
        """
        encoder = Encoder(
            backbone, image_size=self.image_size, patch_size=self.patch_size, position="learned"
        )
        local_size = max(3 * min(encoder.grid) // 7, 1) * self.patch_size
        return IBOT(encoder, local_size=local_size, **self.ibot_head)

    @property
    def ibot_head(self) -> dict[str, Any]:
        """Arguments of the iBOT: its own head and crops, or tiny and few ones."""
        tiny = {"out_dim": 64, "head_hidden_dim": 64, "head_bottleneck_dim": 32, "num_local_crops": 1}
        return tiny if self.quick else {}

    def size(self, backbone: str) -> MAESize:
        """The sizes of such a model, which is not built."""
        return mae_size(backbone, self.image_size, self.patch_size, **self.decoder)

    def mask_shape(self, batch: int) -> Shape:
        """The masks of the first backbone."""
        size = self.size(self.backbones[0])
        return shape_of(batch, size.num_patches, size.encoder.width, mask_ratio=self.mask_ratio)


def shape_of(batch: int, num_patches: int, dim: int, *, mask_ratio: float) -> Shape:
    """A batch of masks at a ratio.

    Raises:
        ValueError: If the ratio is outside (0, 1).
    """
    return Shape(batch, num_patches, num_patches - num_masked_for(mask_ratio, num_patches), dim)
