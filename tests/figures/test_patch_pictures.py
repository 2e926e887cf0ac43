import pytest
import torch
from matplotlib.colors import to_hex

from dppmask.data.transforms import IMAGENET_MEAN, IMAGENET_STD, normalise
from dppmask.evaluation.pixels import on_pixels, replace_hidden
from dppmask.figures.patches import cover_hidden, outline, show_image, to_uint8
from dppmask.figures.style import new_figure
from dppmask.rng import fold_in


def test_normalisation_is_undone_exactly():
    every_value = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    back = to_uint8(normalise(every_value, IMAGENET_MEAN, IMAGENET_STD), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert torch.equal(back, every_value)


def test_what_lies_outside_the_range_is_clipped():
    assert to_uint8(torch.tensor([[[[-9.0, 9.0]]]]), mean=(0.5,), std=(0.5,)).flatten().tolist() == [0, 255]


def test_every_pixel_has_the_value_of_its_patch():
    values = torch.arange(6).reshape(1, 6)
    on = on_pixels(values, (2, 3), (4, 9))[0, 0]
    for y in range(4):
        for x in range(9):
            assert on[y, x] == values[0, 3 * (y // 2) + x // 3]


def test_visible_pixels_stay_and_hidden_ones_fade(pixels):
    masked = torch.rand(3, 12, generator=fold_in(1)) < 0.5
    hidden = on_pixels(masked, (3, 4), (24, 32)).expand_as(pixels)
    covered = cover_hidden(pixels, masked, (3, 4))
    assert torch.equal(covered[~hidden], pixels[~hidden])
    assert covered[hidden].float().std() < 0.2 * pixels[hidden].float().std()
    assert covered[hidden].float().mean() > 190


def test_hidden_patches_come_from_the_other_images(pixels):
    masked = torch.rand(3, 12, generator=fold_in(2)) < 0.5
    hidden = on_pixels(masked, (3, 4), (24, 32)).expand_as(pixels)
    other = 255 - pixels
    mixed = replace_hidden(pixels, other, masked, (3, 4))
    assert torch.equal(mixed[hidden], other[hidden])
    assert torch.equal(mixed[~hidden], pixels[~hidden])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_shown_as_it_is(channels):
    image = torch.randint(0, 256, (channels, 6, 5), generator=fold_in(3), dtype=torch.uint8)
    axes = new_figure(1, 1).subplots()
    show_image(axes, image)
    shown = torch.from_numpy(axes.images[0].get_array().copy())
    assert torch.equal(shown, image.expand(3, -1, -1).permute(1, 2, 0))


def test_one_box_in_each_chosen_patch(boxes):
    chosen = torch.rand(12, generator=fold_in(4)) < 0.5
    axes = new_figure(1, 1).subplots()
    outline(axes, chosen, grid=(3, 4), image_size=(24, 32), colour="#123456", name="mine")
    assert boxes(axes) == {"mine": [(i // 4, i % 4) for i in range(12) if chosen[i]]}
    assert to_hex(axes.collections[0].get_edgecolor()[0]) == "#123456"
