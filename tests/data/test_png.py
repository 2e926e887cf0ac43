"""Pictures in records: nothing is lost, and what is no picture is said to be none."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dppmask.data.png import from_png, to_png
from dppmask.rng import fold_in


@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 4, 9), (3, 1, 1), (1, 1, 3)], ids=str)
def test_what_comes_back_is_what_was_written(shape):
    image = torch.randint(0, 256, shape, generator=fold_in(0), dtype=torch.uint8)
    read = from_png(json.loads(json.dumps(to_png(image))))
    assert read.dtype == torch.uint8
    assert torch.equal(read, image)


def test_a_view_is_written_as_it_looks():
    image = torch.randint(0, 256, (6, 4, 3), generator=fold_in(1), dtype=torch.uint8).permute(2, 0, 1)
    assert torch.equal(from_png(to_png(image[:, ::2])), image[:, ::2])


def test_any_other_program_reads_it():
    image = torch.tensor([[[255, 0]], [[0, 128]], [[3, 0]]], dtype=torch.uint8)  # a red and a green pixel
    with Image.open(io.BytesIO(base64.b64decode(to_png(image)))) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (2, 1))
        assert np.array(opened).tolist() == [[[255, 0, 3], [0, 128, 0]]]


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 2, 2), torch.zeros(4, 2, 2).byte(), torch.zeros(2, 2).byte()]
)
def test_what_is_no_picture_is_not_written(image):
    with pytest.raises(ValueError, match=r"to_png takes uint8 \[1 or 3, H, W\], got"):
        to_png(image)


def other_file(mode: str, format: str) -> str:
    file = io.BytesIO()
    Image.new(mode, (2, 2)).save(file, format)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no base64!", "no PNG in base64"),
        (base64.b64encode(b"text").decode(), "no PNG in base64"),
        (to_png(torch.zeros(3, 8, 8, dtype=torch.uint8))[:60], "no PNG in base64"),
        (other_file("RGB", "bmp"), "no PNG in base64"),
        (other_file("RGBA", "png"), "not mode RGBA"),
    ],
    ids=["characters", "bytes", "cut off", "another format", "another mode"],
)
def test_what_is_no_picture_is_not_read(text, message):
    with pytest.raises(ValueError, match=message):
        from_png(text)
