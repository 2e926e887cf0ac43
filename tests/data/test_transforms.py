"""Crops are recorded as they were cut; the transform for testing is the usual one, for masks as well."""

import pickle

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from dppmask.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    TrainTransform,
    apply_crop,
    denormalise,
    eval_transform,
    normalise,
    train_transform,
)
from dppmask.errors import UserError
from dppmask.rng import fold_in, seeded

SIZES = [(40, 40), (33, 61), (90, 47)]


def noise(height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), generator=fold_in(0, height, width), dtype=torch.uint8)


def ramp(height: int, width: int) -> Tensor:
    """Each pixel's row and column, as float ``[3, H, W]``."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows]).float()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("output", [24, (16, 40)])
def test_crop_record_reproduces_the_crop(size, output):
    image, transform = noise(*size), train_transform(output)
    for index in range(20):
        with seeded(0, index):
            pixels, crop = transform(image)
        again = normalise(apply_crop(image, crop, transform.output_size), IMAGENET_MEAN, IMAGENET_STD)
        assert torch.equal(pixels, again)
        assert pixels.shape == (3, *transform.output_size)


def test_crop_record_names_the_pixels_shown():
    """Cut by hand what the record says: the corners of a ramp tell where the crop came from."""
    transform = train_transform(32, scale=(0.3, 0.6))
    positions = ramp(64, 96)
    for index in range(20):
        with seeded(1, index):
            _, crop = transform(noise(64, 96))
        top, left, height, width, flipped = crop.tolist()
        shown = apply_crop(positions, crop, (height, width))
        if flipped:
            shown = shown.flip(-1)
        torch.testing.assert_close(shown, positions[:, top : top + height, left : left + width])


def test_crops_keep_to_scale_and_ratio_and_vary():
    transform, image = train_transform(16, scale=(0.25, 0.5)), noise(200, 200)
    crops = []
    for index in range(200):
        with seeded(0, index):
            crops.append(transform(image)[1])
    height, width, flipped = torch.stack(crops)[:, 2:].T.double()
    area, ratio = height * width / 200**2, width / height
    assert area.min() > 0.24
    assert area.max() < 0.51
    assert ratio.min() > 0.73
    assert ratio.max() < 1.36
    assert area.std() > 0.05
    assert 0.4 < flipped.mean() < 0.6


def test_random_numbers_come_from_the_surrounding_seed():
    transform, image = train_transform(16), noise(40, 40)
    crops = []
    for counter in (0, 0, 1):
        with seeded(7, counter):
            crops.append(transform(image)[1].tolist())
    assert crops[0] == crops[1] != crops[2]


@pytest.mark.parametrize("size", [*SIZES, (224, 224), (375, 500)])
def test_eval_transform_is_resize_and_centre_crop(size):
    image = noise(*size)
    official = v2.Compose(
        [
            v2.Resize(36, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(32),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    torch.testing.assert_close(eval_transform(32, resize_ratio=36 / 32)(image)[0], official(image))


def test_eval_transform_at_its_own_size_changes_nothing():
    image = noise(32, 32)
    pixels, crop = eval_transform(32, resize_ratio=1.0)(image)
    assert crop.tolist() == [0, 0, 32, 32, 0]
    torch.testing.assert_close(denormalise(pixels) * 255, image.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("output", [(32, 32), (24, 48), (48, 24)])
@pytest.mark.parametrize("size", SIZES)
def test_eval_crop_record_names_the_pixels_shown(size, output):
    """The middle of the record is the middle of the image; its sides are the crop's, at one common scale."""
    transform = eval_transform(output)
    pixels, crop = transform(noise(*size))
    top, left, height, width, _ = crop.tolist()
    assert pixels.shape == (3, *output)
    assert abs(2 * top + height - size[0]) <= 1
    assert abs(2 * left + width - size[1]) <= 1
    assert abs(height * output[1] - width * output[0]) <= 1.6 * max(output)
    assert max(height / size[0], width / size[1]) == pytest.approx(224 / 256, abs=0.04)


@pytest.mark.parametrize("size", [*SIZES, (224, 224), (240, 320)])
def test_whole_images_are_squeezed(size):
    image, transform = noise(*size), eval_transform((32, 48), resize_ratio=None)
    pixels, crop = transform(image)
    assert crop.tolist() == [0, 0, *size, 0]
    squeeze = v2.Resize((32, 48), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(pixels, normalise(squeeze(image), IMAGENET_MEAN, IMAGENET_STD))


@pytest.mark.parametrize("resize_ratio", [1.1, None])
@pytest.mark.parametrize("size", SIZES)
def test_masks_go_where_their_pixels_go(size, resize_ratio):
    """An object painted white on black: its mask lies where the transformed image is bright."""
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[0, size[0] // 3 : size[0] // 2, size[1] // 3 : 2 * size[1] // 3] = True
    masks[1, size[0] // 2 :, : size[1] // 2] = True
    transform = eval_transform(64, resize_ratio=resize_ratio)
    moved = transform.geometry(masks)
    assert moved.shape == (2, 64, 64)
    assert not moved.all(0).any()
    for mask, there in zip(masks, moved, strict=True):
        painted = 255 * mask.to(torch.uint8).expand(3, -1, -1)
        bright = denormalise(transform(painted)[0])[0] > 0.5
        assert (bright != there).float().mean() < 0.01
        assert there.any()


def test_normalise_and_back():
    image = noise(8, 9)
    expected = (image.double() / 255 - torch.tensor(IMAGENET_MEAN).double()[:, None, None]) / torch.tensor(
        IMAGENET_STD
    ).double()[:, None, None]
    normal = normalise(image, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(normal.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(denormalise(normal[None])[0] * 255, image.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("transform", [train_transform(16), eval_transform((16, 24))])
def test_transforms_can_be_pickled(transform):
    clone, image = pickle.loads(pickle.dumps(transform)), noise(30, 30)
    results = []
    for item in (transform, clone):
        with seeded(0):
            results.append(item(image)[0])
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (TrainTransform, {"image_size": 0}, "image_size must be a positive"),
        (TrainTransform, {"image_size": (1, 2, 3)}, "image_size must be a positive"),
        (TrainTransform, {"scale": (0.0, 1.0)}, "scale must be"),
        (TrainTransform, {"scale": (0.5, 0.2)}, "scale must be"),
        (TrainTransform, {"ratio": (2.0, 1.0)}, "ratio must be"),
        (TrainTransform, {"flip": 1.5}, "flip must be"),
        (EvalTransform, {"resize_ratio": 0.9}, "resize_ratio must be at least 1"),
    ],
)
def test_wrong_options(kind, options, message):
    with pytest.raises(UserError, match=message):
        kind(**options)
