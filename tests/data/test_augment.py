import pickle

import pytest
import torch
from timm.data.transforms_factory import create_transform
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from dppmask.data.augment import FineTuneTransform
from dppmask.data.transforms import TrainTransform
from dppmask.errors import UserError
from dppmask.rng import fold_in, seeded


def picture(key=0):
    return torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8, generator=fold_in(81, key))


def test_without_its_parts_it_is_a_random_crop():
    plain = FineTuneTransform(32, rand_augment=None, erasing=0.0)
    with seeded(0):
        expected = TrainTransform(32, scale=(0.08, 1.0))(picture())
    with seeded(0):
        actual = plain(picture())
    for one, two in zip(actual, expected, strict=True):
        assert torch.equal(one, two)


def test_equal_seeds_give_equal_images_also_from_a_copy():
    transform = FineTuneTransform(32, erasing=1.0)
    copy = pickle.loads(pickle.dumps(transform))
    results = []
    for each, seed in [(transform, 0), (copy, 0), (transform, 1)]:
        with seeded(seed):
            results.append(each(picture())[0])
    assert results[0].shape == (3, 32, 32)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_augments_as_timms_factory_does():
    """The middle part of timm's training transform, from the same random numbers."""
    factory = create_transform(
        32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", re_prob=0.0
    )
    (theirs,) = (part for part in factory.transforms if type(part).__name__ == "RandAugment")
    ours = FineTuneTransform(32, erasing=0.0)._augment
    image = to_pil_image(picture()[:, :32, :32])
    for seed in range(8):
        with seeded(seed):
            expected = v2.functional.pil_to_tensor(theirs(image))
        with seeded(seed):
            actual = v2.functional.pil_to_tensor(ours(image))
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("magnitude", [0, 5, 10])
@pytest.mark.parametrize("notation", ["rand-m9-mstd0.5-inc1", "rand-m9-mstd0.5"])
def test_every_operation_works_at_every_magnitude(notation, magnitude):
    """Magnitudes are drawn around that of the notation, and reach 0 and 10."""
    image = to_pil_image(picture())
    for operation in FineTuneTransform(32, rand_augment=notation)._augment.ops:
        operation.prob, operation.magnitude, operation.magnitude_std = 1.0, magnitude, 0.0
        with seeded(0):
            assert operation(image).size == image.size


def test_erasing_fills_a_rectangle_with_normal_noise():
    grey = torch.full((3, 64, 64), 124, dtype=torch.uint8)
    transform = FineTuneTransform(32, rand_augment=None, erasing=0.25, mean=(0.5,) * 3, std=(0.2,) * 3)
    erased = 0
    for seed in range(200):
        with seeded(seed):
            image, _ = transform(grey)
        changed = (image != image[:, :1, :1].median()).any(0)
        if changed.any():
            erased += 1
            rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
            assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    assert 25 < erased < 75  # binomial(200, 0.25): 50 ± 6


@pytest.mark.parametrize("notation", ["rand-q9", "cutout", ""])
def test_other_notations_are_refused(notation):
    with pytest.raises(UserError, match="rand_augment must be written as timm does") as error:
        FineTuneTransform(32, rand_augment=notation)
    assert "\n" not in str(error.value)


def test_erasing_out_of_range():
    with pytest.raises(UserError, match=r"erasing must be in \[0, 1\], got 1\.5"):
        FineTuneTransform(32, erasing=1.5)
