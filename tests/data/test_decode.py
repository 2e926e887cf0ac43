"""Every kind of image file becomes upright RGB of 8 bits; damaged files are recognised."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dppmask.data.decode import UnreadableImageError, read_image
from dppmask.rng import fold_in

ORIENTATION = 0x0112


def picture(height: int = 24, width: int = 40) -> Tensor:
    """A smooth colour image uint8 [3, H, W] whose corners all differ."""
    y, x = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    channels = torch.stack([(x * 255).expand(height, width), (y * 255).expand(height, width), 127 * (x + y)])
    return channels.to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def difference(one: Tensor, other: Tensor) -> float:
    return (one.float() - other.float()).abs().mean().item()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_lossless_formats_are_exact(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    to_pil(picture()).save(path)
    assert torch.equal(read_image(path), picture())


@pytest.mark.parametrize(("suffix", "options"), [("jpg", {"quality": 95}), ("webp", {"quality": 95})])
def test_lossy_formats_are_close(tmp_path, suffix, options):
    path = tmp_path / f"image.{suffix}"
    to_pil(picture()).save(path, **options)
    pixels = read_image(path)
    assert pixels.dtype == torch.uint8
    assert difference(pixels, picture()) < 3
    assert difference(pixels, picture().flip(-1)) > 30


def test_greyscale_and_bilevel(tmp_path):
    grey = to_pil(picture()).convert("L")
    grey.save(tmp_path / "grey.png")
    pixels = read_image(tmp_path / "grey.png")
    assert torch.equal(pixels, torch.from_numpy(np.array(grey)).expand(3, -1, -1))
    grey.point(lambda value: 255 * (value > 128)).convert("1").save(tmp_path / "bilevel.png")
    assert set(read_image(tmp_path / "bilevel.png").unique().tolist()) == {0, 255}


def test_cmyk_jpeg(tmp_path):
    to_pil(picture()).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert difference(read_image(tmp_path / "cmyk.jpg"), picture()) < 4


def test_palette(tmp_path):
    colours = to_pil(picture()).quantize(256)
    colours.save(tmp_path / "palette.png")
    expected = torch.from_numpy(np.array(colours.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "palette.png"), expected)


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "film.gif")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_show_white(tmp_path, mode):
    image = to_pil(picture()).convert(mode)
    alpha = torch.full((24, 40), 255, dtype=torch.uint8)
    alpha[:, :10], alpha[:, 10:20] = 0, 128
    image.putalpha(Image.fromarray(alpha.numpy()))
    image.save(tmp_path / "alpha.png")
    opaque = torch.from_numpy(np.array(image.convert("RGB" if mode == "RGBA" else "L").convert("RGB")))
    opaque = opaque.permute(2, 0, 1).float()
    expected = 255 + alpha / 255 * (opaque - 255)
    pixels = read_image(tmp_path / "alpha.png")
    assert (pixels[:, :, :10] == 255).all()
    assert (pixels.float() - expected).abs().max() <= 1


def test_transparent_palette_shows_white(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "transparent.png", transparency=0)
    pixels = read_image(tmp_path / "transparent.png")
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 1, 1].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled(tmp_path, suffix):
    values = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    pixels = read_image(tmp_path / f"deep.{suffix}")
    expected = torch.from_numpy(np.round(values / 257.0)).expand(3, -1, -1)
    assert torch.equal(pixels.double(), expected)
    assert len(pixels.unique()) == 256


def test_32_bit_container_of_16_bits(tmp_path):
    values = np.array([[0, 257, 65535]], dtype=np.int32)
    Image.fromarray(values).save(tmp_path / "wide.tif")
    assert read_image(tmp_path / "wide.tif")[0].tolist() == [[0, 1, 255]]


@pytest.mark.parametrize(
    "values", [np.array([[0, 70_000]], dtype=np.int32), np.array([[0.0, 1.0]], np.float32)]
)
def test_pixels_without_agreed_range_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(UnreadableImageError, match="no agreed range"):
        read_image(tmp_path / "odd.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, suffix, orientation):
    """Write the image turned the way a camera would, and say so in the header: it must come back upright."""
    undo = {
        1: lambda x: x,
        2: lambda x: x.flip(2),
        3: lambda x: x.flip(1, 2),
        4: lambda x: x.flip(1),
        5: lambda x: x.transpose(1, 2),
        6: lambda x: x.rot90(1, (1, 2)),
        7: lambda x: x.flip(1, 2).transpose(1, 2),
        8: lambda x: x.rot90(-1, (1, 2)),
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"turned.{suffix}"
    to_pil(undo[orientation](picture()).contiguous()).save(path, exif=exif, quality=95)
    pixels = read_image(path)
    assert pixels.shape == (3, 24, 40)
    assert difference(pixels, picture()) < 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "gif"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6])
def test_truncated_file(tmp_path, suffix, kept):
    path = tmp_path / f"short.{suffix}"
    noise = torch.randint(256, (3, 64, 64), generator=fold_in(0), dtype=torch.uint8)
    to_pil(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UnreadableImageError, match=f"short.{suffix}"):
        read_image(path)


def test_not_an_image(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "page.jpg")
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "missing.jpg")


def test_decompression_bomb_is_unreadable(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("1", (64, 64)).save(tmp_path / "bomb.png")
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        read_image(tmp_path / "bomb.png")
