import pytest
import torch

from dppmask.data.compositing import (
    Box,
    blacken_box,
    keep_foreground,
    paste,
    remove_foreground,
    tile_box,
)
from dppmask.rng import fold_in


def random_case(seed):
    """A random image of odd size, and a mask of random spots in a random box."""
    generator = fold_in(seed)
    image = torch.randint(1, 256, (3, 13, 17), generator=generator, dtype=torch.uint8)
    top, left = (int(torch.randint(0, 6, (), generator=generator)) for _ in range(2))
    mask = torch.zeros(13, 17, dtype=torch.bool)
    mask[top : top + 5, left : left + 8] = torch.rand(5, 8, generator=generator) < 0.5
    return image, mask


def tiled_naively(image, mask):
    """Pixel by pixel: the widest of four strips, laid from the corner of the image."""
    rows = [y for y in range(13) if any(mask[y, x] for x in range(17))]
    columns = [x for x in range(17) if any(mask[y, x] for y in range(13))]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    strips = [  # first row, first column, height, width
        (0, 0, top, 17),
        (bottom, 0, 13 - bottom, 17),
        (0, 0, 13, left),
        (0, right, 13, 17 - right),
    ]
    y0, x0, height, width = max(strips, key=lambda strip: strip[2] * strip[3])
    result = image.clone()
    for y in range(top, bottom):
        for x in range(left, right):
            result[:, y, x] = image[:, y0 + y % height, x0 + x % width]
    return result


@pytest.mark.parametrize("seed", range(8))
def test_pieces_equal_loops_over_pixels(seed):
    image, mask = random_case(seed)
    other, _ = random_case(seed + 100)
    box = Box.around(mask)
    for y in range(13):
        for x in range(17):
            own, inside = image[:, y, x], bool(mask[y, x])
            boxed = box.top <= y < box.bottom and box.left <= x < box.right
            zero = torch.zeros_like(own)
            assert torch.equal(keep_foreground(image, mask)[:, y, x], own if inside else zero)
            assert torch.equal(remove_foreground(image, mask)[:, y, x], zero if inside else own)
            assert torch.equal(blacken_box(image, box)[:, y, x], zero if boxed else own)
            assert torch.equal(paste(image, mask, other)[:, y, x], own if inside else other[:, y, x])
    assert torch.equal(tile_box(image, box), tiled_naively(image, mask))


def test_a_box_touches_the_foreground_on_all_sides():
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[1, 4] = mask[3, 2] = True
    assert Box.around(mask) == (1, 2, 4, 5)
    assert Box.around(mask).area == 9


def test_nothing_to_cut_out_and_nothing_left_to_tile():
    with pytest.raises(ValueError, match="empty mask"):
        Box.around(torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="no background is left"):
        tile_box(torch.ones(3, 4, 4, dtype=torch.uint8), Box(0, 0, 4, 4))
