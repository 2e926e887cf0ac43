"""One object under two masks: what is shown where, and the outline around its pixels."""

import pytest
import torch

from dppmask.data.png import to_png
from dppmask.errors import UserError
from dppmask.figures.lost_objects import draw, edges


@pytest.fixture
def record(pixels):
    item = torch.zeros(1, 24, 32, dtype=torch.uint8)
    item[:, 2:6, 10:14] = 255

    def made(visible, share):
        rebuilt = to_png(255 - pixels[0])
        return {
            "visible": visible,
            "visible_share": share,
            "error": 0.0321 + share,
            "reconstruction": rebuilt,
        }

    row = {"image": 0, "object": 1, "grid": [3, 4], "original": to_png(pixels[0])}
    row |= {"object_pixels": to_png(item), "kept": made([1, 7], 1.0), "lost": made([0, 4], 0.0)}
    return {"tables": {"shown": [row, row | {"original": to_png(pixels[1])}]}}


def picture(axes):
    return torch.from_numpy(axes.images[0].get_array().copy()).permute(2, 0, 1)


def test_a_row_shows_image_masks_and_reconstructions(record, pixels):
    figure = draw([record])
    assert len(figure.axes) == 10
    original, kept, kept_filled, lost, lost_filled = figure.axes[:5]
    assert [axes.get_title() for axes in figure.axes[:5]] == [
        "image",
        "object kept",
        "filled in",
        "object lost",
        "filled in",
    ]
    assert torch.equal(picture(original), pixels[0])
    assert torch.equal(picture(figure.axes[5]), pixels[1])
    for axes, visible in ((kept, (1, 7)), (lost, (0, 4))):
        for patch in range(12):
            row, column = divmod(patch, 4)
            place = (slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            assert torch.equal(picture(axes)[place], pixels[0][place]) == (patch in visible)
    for axes in (kept_filled, lost_filled):
        assert torch.equal(picture(axes), 255 - pixels[0])
    assert [axes.get_xlabel() for axes in (kept, lost)] == ["100 % visible", "0 % visible"]
    assert [axes.get_xlabel() for axes in (kept_filled, lost_filled)] == ["error 1.032", "error 0.032"]


def test_the_object_is_outlined_everywhere(record):
    for axes in draw([record]).axes[:5]:
        (outline,) = axes.collections
        ends = torch.cat([torch.from_numpy(path.vertices) for path in outline.get_paths()])
        assert len(outline.get_paths()) == 16  # a square of four pixels a side
        assert ends.min(0).values.tolist() == [9.5, 1.5]
        assert ends.max(0).values.tolist() == [13.5, 5.5]


@pytest.mark.parametrize("seed", range(3))
def test_edges_are_where_a_pixel_has_no_neighbour(seed):
    item = torch.rand(5, 7, generator=torch.Generator().manual_seed(seed)) < 0.5
    expected = set()
    for y, x in item.nonzero().tolist():
        corners = [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x - 0.5, y + 0.5), (x + 0.5, y + 0.5)]
        sides = {(-1, 0): (0, 1), (1, 0): (2, 3), (0, -1): (0, 2), (0, 1): (1, 3)}
        for (down, right), (one, other) in sides.items():
            inside = 0 <= y + down < 5 and 0 <= x + right < 7
            if not (inside and item[y + down, x + right]):
                expected.add((corners[one], corners[other]))
    found = [tuple(side) for side in edges(item)]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_what_cannot_be_drawn(record):
    with pytest.raises(UserError, match="LostObjects draws one record, got 2"):
        draw([record, record])
    with pytest.raises(UserError, match="shows no object that one mask keeps and another loses"):
        draw([{"tables": {"shown": []}}])
