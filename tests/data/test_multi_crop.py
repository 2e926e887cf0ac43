"""Two sizes of crops, view-major in a batch, each a function of (seed, epoch, index)."""

import pickle

import pytest
import torch
from test_data_module import Noise, take
from torch import Tensor

from dppmask.data import multi_crop
from dppmask.data.module import TrainLoader
from dppmask.data.multi_crop import FIRST, LOCAL, OTHERS, MultiCropTransform, random_blur
from dppmask.data.transforms import apply_crop, denormalise, normalise
from dppmask.errors import UserError
from dppmask.rng import fold_in, seeded
from dppmask.views import MultiCrop, Views, join_views, whole_images

PLAIN = MultiCrop(num_global=2, num_local=3, local_size=8, light=0.0, colour=0.0)


def noise(*size: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (3, *size), generator=fold_in(seed), dtype=torch.uint8)


def crop(transform: MultiCropTransform, image: Tensor, *counters: int) -> tuple[Views, Tensor]:
    with seeded(0, *counters):
        return transform(image)


def test_shapes_and_what_the_global_crops_show():
    transform = MultiCropTransform((16, 24), PLAIN, scale=(0.3, 0.6))
    image = noise(40, 50)
    for step in range(20):
        views, shown = crop(transform, image, step)
        assert views.global_crops.shape == (2, 3, 16, 24)
        assert views.local_crops.shape == (3, 3, 8, 8)
        assert (views.num_global, views.num_local) == (2, 3)
        for pixels, box in zip(views.global_crops, shown, strict=True):
            expected = apply_crop(image, box, (16, 24))
            assert torch.equal(pixels, normalise(expected, transform.mean, transform.std))
        shares = shown[:, 2] * shown[:, 3] / (40 * 50)
        assert (shares > 0.27).all()
        assert (shares < 0.63).all()


def test_local_crops_cover_their_share_of_the_image():
    """Each pixel tells its place, so the extent of a crop can be read off its pixels."""
    ramp = torch.arange(200).expand(200, -1)
    image = torch.stack([ramp, ramp.T, torch.zeros_like(ramp)]).to(torch.uint8)
    plan = MultiCrop(2, 40, 16, local_scale=(0.1, 0.2), light=0.0, colour=0.0)
    views, _ = crop(MultiCropTransform(16, plan), image)
    pixels = denormalise(views.local_crops)[:, :2] * 255
    extent = (pixels.amax((2, 3)) - pixels.amin((2, 3))) * 16 / 15 / 200  # [40, 2]
    shares = extent.prod(1)
    assert 0.08 < shares.min() < 0.12
    assert 0.16 < shares.max() < 0.22


def test_no_local_crops():
    views, _ = crop(MultiCropTransform(16, MultiCrop(2, 0)), noise(40, 40))
    assert views.local_crops is None


@pytest.mark.parametrize(("light", "colour"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize(
    ("kind", "blur", "solarise"), [(FIRST, 1.0, 0.0), (OTHERS, 0.1, 0.2), (LOCAL, 0.5, 0.0)]
)
def test_distortions_come_as_often_as_in_ibot(monkeypatch, kind, blur, solarise, light, colour):
    """Counts of 500 crops within 4 standard errors of the published probabilities."""
    transform = MultiCropTransform(8, MultiCrop(light=light, colour=colour))
    counts = {"jitter": 0, "grey": 0, "blur": 0, "solarise": 0}

    def counted(name: str):
        def change(pixels: Tensor, *_, **__) -> Tensor:
            counts[name] += 1
            return pixels

        return change

    monkeypatch.setattr(transform, "_jitter", counted("jitter"))
    monkeypatch.setattr(multi_crop, "random_blur", counted("blur"))
    monkeypatch.setattr(multi_crop.F, "rgb_to_grayscale", counted("grey"))
    monkeypatch.setattr(multi_crop.F, "solarize", counted("solarise"))
    with seeded(0):
        for _ in range(500):
            transform._distort(noise(8, 8), kind)
    expected = {
        "jitter": 0.8,
        "grey": 0.2 * colour,
        "blur": blur * light,
        "solarise": solarise * colour,
    }
    for name, share in expected.items():
        assert abs(counts[name] / 500 - share) <= 4 * (share * (1 - share) / 500) ** 0.5, name


def test_global_crops_are_distorted_as_first_and_others_and_local_ones_as_local(monkeypatch):
    transform, kinds = MultiCropTransform(8, MultiCrop(3, 2, 8)), []
    monkeypatch.setattr(transform, "_distort", lambda pixels, kind: kinds.append(kind) or pixels)
    crop(transform, noise(20, 20))
    assert kinds == [FIRST, OTHERS, OTHERS, LOCAL, LOCAL]


def test_distorted_crops_differ_from_plain_ones_in_colour_and_sharpness():
    image, box = noise(20, 20), torch.tensor([0, 0, 20, 20, 0])
    with seeded(0):
        distorted = MultiCropTransform(20, MultiCrop())._distort(image, FIRST)
    assert distorted.dtype == torch.uint8
    assert distorted.float().var() < 0.8 * apply_crop(image, box, (20, 20)).float().var()  # blurred noise


def test_blur_keeps_the_mean_and_fits_small_images():
    for side in (2, 5, 40):
        with seeded(0, side):
            blurred = random_blur(noise(side, side))
        assert blurred.shape == (3, side, side)
        assert blurred.dtype == torch.uint8
    with seeded(1):
        flat = random_blur(torch.full((3, 40, 40), 77, dtype=torch.uint8))
    assert (flat == 77).all()


def test_batches_are_view_major():
    batches = TrainLoader(Noise(8), MultiCropTransform(16, PLAIN), batch_size=4, seed=3)
    batch = next(iter(batches))
    assert isinstance(batch.images, Views)
    assert batch.images.global_crops.shape == (8, 3, 16, 16)
    assert batch.images.local_crops.shape == (12, 3, 8, 8)
    assert batch.crops.shape == (8, 5)
    assert batch.labels.shape == (4,)
    assert batch.sample_ids.tolist() == batch.sample_ids[:4].tolist() * 2
    for b, index in enumerate(batch.sample_ids[:4].tolist()):
        with seeded(3, 0, index):
            views, shown = MultiCropTransform(16, PLAIN)(Noise(8)[index].image)
        assert torch.equal(batch.images.global_crops[b::4], views.global_crops)
        assert torch.equal(batch.images.local_crops[b::4], views.local_crops)
        assert torch.equal(batch.crops[b::4], shown)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_at_any_position(num_workers):
    def loader() -> TrainLoader:
        transform = MultiCropTransform(16, MultiCrop(2, 1, 8))
        return TrainLoader(Noise(12), transform, batch_size=3, seed=5, num_workers=num_workers)

    expected = take(loader(), 8)
    for position in (1, 4, 6):
        first, second = loader(), loader()
        take(first, position)
        second.load_state_dict(first.state_dict())
        for one, other in zip(take(second, 8 - position), expected[position:], strict=True):
            assert torch.equal(one.images.global_crops, other.images.global_crops)
            assert torch.equal(one.images.local_crops, other.images.local_crops)
            assert torch.equal(one.crops, other.crops)


def test_join_views():
    singles = [
        Views(torch.full((2, 1), 10.0 * b) + torch.tensor([[0.0], [1.0]]), torch.full((3, 1), float(b)), 2, 3)
        for b in range(4)
    ]
    joined = join_views(singles)
    assert joined.global_crops.flatten().tolist() == [0, 10, 20, 30, 1, 11, 21, 31]
    assert joined.local_crops.flatten().tolist() == [0, 1, 2, 3] * 3
    assert torch.equal(whole_images(joined), joined.global_crops)
    assert torch.equal(whole_images(joined.global_crops), joined.global_crops)


def test_pickles():
    transform = MultiCropTransform(16, MultiCrop(2, 1, 8))
    twin = pickle.loads(pickle.dumps(transform))
    one, other = crop(transform, noise(30, 30)), crop(twin, noise(30, 30))
    assert torch.equal(one[0].global_crops, other[0].global_crops)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_global": 0}, "num_global_crops must be at least 1, got 0"),
        ({"num_local": -1}, "num_local_crops must be at least 0, got -1"),
        ({"local_size": 0}, "local_size must be at least 1 pixel, got 0"),
        ({"local_scale": (0.5, 0.2)}, r"local_scale must be \(low, high\).*got \(0\.5, 0\.2\)"),
        ({"local_scale": 0.5}, r"local_scale must be \(low, high\).*got 0\.5"),
        ({"light": 1.5}, r"light must be in \[0, 1\], got 1\.5"),
        ({"colour": -1.0}, r"colour must be in \[0, 1\], got -1\.0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        MultiCrop(**options)


@pytest.mark.gpu
def test_pinned_views():
    loader = TrainLoader(Noise(4), MultiCropTransform(16, PLAIN), batch_size=2, seed=0, pin_memory=True)
    views = next(iter(loader)).images
    assert views.global_crops.is_pinned()
    assert views.local_crops.is_pinned()


def test_blur_equals_torchvisions_square_kernel():
    image = noise(40, 50)
    with seeded(3):
        blurred = random_blur(image)
    with seeded(3):
        radius = torch.empty(()).uniform_(0.1, 2.0).item()
    expected = multi_crop.F.gaussian_blur(image, kernel_size=[13, 13], sigma=[radius, radius])
    assert (blurred.int() - expected.int()).abs().max() <= 1
    assert not torch.equal(blurred, image)


def test_colour_stays_where_it_is_wanted():
    """Light changes scale all channels alike: what was red against green stays so."""
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[0], image[1], image[2] = 140, 100, 60
    plain = MultiCropTransform(16, MultiCrop(light=1.0, colour=0.0))
    full = MultiCropTransform(16, MultiCrop(light=1.0, colour=1.0))
    hues = {plain: [], full: []}
    for transform, seen in hues.items():
        with seeded(0):
            for _ in range(40):
                red, green, blue = transform._distort(image, OTHERS).float().mean((1, 2)).tolist()
                seen.append((green - blue) / max(red - blue, 1e-6))
    assert max(abs(hue - 0.5) for hue in hues[plain]) < 0.05
    assert max(abs(hue - 0.5) for hue in hues[full]) > 0.3
