"""Small images, a tiny MAE, and a way to count what was drawn."""

from collections.abc import Callable

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from torch import Tensor

from dppmask.data.transforms import IMAGENET_MEAN, IMAGENET_STD, normalise
from dppmask.models.encoder import Encoder
from dppmask.models.mae import MAE
from dppmask.rng import fold_in, seeded

HEIGHT, WIDTH, PATCH = 24, 32, 8


@pytest.fixture
def pixels() -> Tensor:
    """uint8 ``[3, 3, 24, 32]``."""
    generator = fold_in(7)
    return torch.randint(0, 256, (3, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)


@pytest.fixture
def images(pixels: Tensor) -> Tensor:
    """The same, normalised."""
    return normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)


@pytest.fixture
def make_mae() -> Callable[..., MAE]:
    """A tiny MAE on a grid of 3 × 4 patches."""

    def make(*, seed: int = 0, norm_pix_loss: bool = True) -> MAE:
        with seeded(seed):
            encoder = Encoder("test_vit", image_size=(HEIGHT, WIDTH), patch_size=PATCH)
            return MAE(
                encoder,
                decoder_embed_dim=32,
                decoder_depth=1,
                decoder_num_heads=2,
                norm_pix_loss=norm_pix_loss,
            )

    return make


@pytest.fixture
def boxes() -> Callable[[Axes], dict[str, list[tuple[int, int]]]]:
    """Name of the boxes → (row, column) of the patch each one lies in, for patches of 8 pixels."""

    def find(axes: Axes) -> dict[str, list[tuple[int, int]]]:
        found: dict[str, list[tuple[int, int]]] = {}
        for collection in axes.collections:
            assert isinstance(collection, PatchCollection)
            places = []
            for path in collection.get_paths():
                low, high = path.vertices.min(0) + 0.5, path.vertices.max(0) + 0.5
                assert (low // PATCH == high // PATCH).all(), "a box leaves its patch"
                column, row = (int(value) for value in low // PATCH)
                places.append((row, column))
            found[str(collection.get_label())] = places
        return found

    return find
