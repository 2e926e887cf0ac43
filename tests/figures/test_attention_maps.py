import pytest
import torch

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.figures.attention_maps import AttentionMaps, attention_maps, draw_attention, draw_attention_maps
from dppmask.models.checkpoint import save_encoder
from dppmask.models.encoder import Encoder
from dppmask.rng import seeded

GRID = (3, 4)


def test_the_maps_are_the_attention_of_the_encoder_which_is_left_as_it_was(images, pixels, make_mae):
    encoder = make_mae().encoder.train()
    maps = attention_maps(images, encoder, note="a note")
    assert encoder.training
    assert torch.equal(maps.images, pixels)
    assert (maps.grid, maps.note) == (GRID, "a note")
    with torch.no_grad():
        expected = encoder.eval().encode(images, attention=True).attention
    torch.testing.assert_close(maps.attention, expected)


def test_panels_are_multiples_of_an_equal_share(pixels):
    attention = torch.full((3, 2, 12), 0.5 / 12)
    attention[:, 1, 5] = 0.25
    panels = AttentionMaps(pixels, GRID, attention).panels
    assert list(panels) == ["mean", "head 1", "head 2"]
    torch.testing.assert_close(panels["head 1"], torch.full((3, 12), 0.5))
    torch.testing.assert_close(panels["head 2"][:, 5], torch.full((3,), 3.0))
    torch.testing.assert_close(panels["mean"][:, 5], torch.full((3,), 1.75))


def test_every_panel_shows_its_values_in_place(images, make_mae):
    maps = attention_maps(images, make_mae().encoder, note="a note")
    figure = draw_attention_maps(maps)
    num_columns = 2 + maps.attention.shape[1]
    assert len(figure.axes) == 3 * num_columns
    for row in range(3):
        original, *drawn = figure.axes[num_columns * row : num_columns * (row + 1)]
        assert torch.equal(
            torch.from_numpy(original.images[0].get_array().copy()), maps.images[row].permute(1, 2, 0)
        )
        for panel, values in zip(drawn, maps.panels.values(), strict=True):
            shown = panel.images[0]
            assert torch.equal(torch.tensor(shown.get_array().data), values[row].unflatten(0, GRID))
            assert shown.get_extent() == [-0.5, 31.5, 23.5, -0.5]  # the area of the image
            assert panel.get_xlabel() == f"{values[row].min():.2f} to {values[row].max():.2f}"
    titles = [panel.get_title() for panel in figure.axes[:num_columns]]
    assert titles == ["original", *maps.panels]
    assert figure.get_supxlabel().endswith("\na note")


def test_the_command_draws_a_run(tmp_path, make_mae):
    save_encoder(make_mae().encoder, tmp_path / "run" / "encoder")
    data = Scenes(size=(36, 48), train_size=2, val_size=3)
    out = draw_attention(run=str(tmp_path / "run"), data=data, out=str(tmp_path / "a.svg"), num_images=2)
    assert out.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "a.gif"}, "out must end with"),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
        ({"run": "nowhere"}, "nowhere is neither a run"),
        ({"run": "blind"}, "attention=True needs a class token"),
    ],
)
def test_wrong_options_of_the_command(tmp_path, make_mae, options, words):
    save_encoder(make_mae().encoder, tmp_path / "run" / "encoder")
    with seeded(0):
        blind = Encoder("test_vit", image_size=32, patch_size=8, backbone_args={"class_token": False})
    save_encoder(blind, tmp_path / "blind" / "encoder")
    options = {"run": "run", "out": "a.png"} | options
    run = options["run"] if options["run"] == "nowhere" else str(tmp_path / options["run"])
    options |= {"run": run, "out": str(tmp_path / options["out"])}
    with pytest.raises(UserError, match=words):
        draw_attention(data=Scenes(size=32, train_size=2, val_size=2), **options)
    assert not (tmp_path / "a.png").exists()
