"""Feature extraction beside a plain loop over timm's own model: same weights, images, transform, loader."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dppmask.bench.harness import Row, measure_in_turns
from dppmask.bench.inputs import OURS
from dppmask.bench.job import Job
from dppmask.bench.masks import ratio_columns
from dppmask.bench.settings import Settings
from dppmask.data.base import ImageSource, Sample, Split
from dppmask.data.transforms import EvalTransform
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.features import View, eval_transform_of, frozen_features
from dppmask.models.encoder import Encoder
from dppmask.rng import fold_in, seeded

PLAIN = "timm loop"
BATCHES = 4  # that are encoded in a timing


@dataclass
class Decoded(ImageSource):
    """Noise as decoded images, uint8 ``[n, 3, H, W]``."""

    images: Tensor

    def split(self, name: Split) -> "Decoded":
        """All of it."""
        return self

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], sample_id=index)


@dataclass
class Plain(Dataset[Tensor]):
    """The same as anybody's data set has them: transformed, without anything else."""

    images: Tensor
    transform: EvalTransform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images[index])[0]


def jobs(settings: Settings) -> Iterator[Job]:
    """One job a backbone and batch."""
    for backbone in settings.backbones:
        for batch in settings.feature_batches():
            yield Job(f"features of {backbone}, batch {batch}", partial(rows_of, backbone, batch, settings))


def rows_of(backbone: str, batch: int, settings: Settings) -> list[Row]:
    """A row for ours and one for the plain loop; ``ratio`` is our time over theirs.

    Raises:
        RuntimeError: If their features differ by more than rounding.
    """
    with seeded(0):
        encoder = settings.encoder(backbone).to(settings.device)
    size = (BATCHES * batch, 3, *encoder.image_size)
    images = torch.randint(256, size, generator=fold_in(0), dtype=torch.uint8)
    calls = {
        OURS: partial(our_features, encoder, images, batch),
        PLAIN: partial(plain_features, plain_model(encoder), encoder, images, batch),
    }
    check_equal(calls[OURS](), calls[PLAIN]())
    timings = measure_in_turns(calls, repeats=settings.rounds, warmup=1, limit=settings.limit)
    return [
        {"backbone": backbone, "batch": batch, "images": len(images), "implementation": name}
        | {"dtype": "float32", "feature_dim": encoder.embed_dim, **timing.columns()}
        | {"images_per_second": round(len(images) / timing.median, 2)}
        | ratio_columns(timings[OURS], timing)
        | {"threads": torch.get_num_threads()}
        for name, timing in timings.items()
    ]


def our_features(encoder: Encoder, images: Tensor, batch: int) -> Tensor:
    """Class tokens ``[n, D]`` as every evaluation gets them, without a cache."""
    device = str(next(encoder.parameters()).device)
    part = Part.open(Decoded(images), "val")
    return frozen_features(encoder, part, View(), Compute(device, batch_size=batch)).values


def plain_model(encoder: Encoder) -> VisionTransformer:
    """Timm's module with the weights of an encoder."""
    model = timm.create_model(encoder.backbone_name, **encoder.timm_arguments())
    model.load_state_dict(encoder.backbone.state_dict())
    model.to(next(encoder.parameters()).device).eval()
    return cast(VisionTransformer, model)


def plain_features(model: VisionTransformer, encoder: Encoder, images: Tensor, batch: int) -> Tensor:
    """Class tokens ``[n, D]`` in a few lines of one's own."""
    device = next(model.parameters()).device
    transform = eval_transform_of(encoder, Decoded(images))
    loader = DataLoader(Plain(images, transform), batch_size=batch)
    with torch.no_grad():
        return torch.cat([model.forward_features(x.to(device))[:, 0].cpu() for x in loader])


def check_equal(ours: Tensor, theirs: Tensor) -> None:
    """Correctness first.

    Raises:
        RuntimeError: If features differ by more than rounding.
    """
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
        gap = (ours - theirs).abs().max().item()
        raise RuntimeError(f"our features and timm's differ by {gap:.2g}; nothing was measured")
