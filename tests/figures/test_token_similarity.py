import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.figures.style import SERIES
from dppmask.figures.token_similarity import draw_similarity, draw_similarity_maps, token_similarity
from dppmask.models.checkpoint import save_encoder

GRID = (3, 4)
PLACES = [(1, 2), (0, 0)]


def test_similarity_is_the_cosine_of_the_tokens(images, pixels, make_mae):
    encoder = make_mae().encoder.train()
    maps = token_similarity(images, encoder, PLACES)
    assert encoder.training
    assert torch.equal(maps.images, pixels)
    with torch.no_grad():
        tokens = encoder.eval().encode(images).patches.numpy()
    for image in range(3):
        for query, patch in enumerate((6, 0)):
            for other in range(12):
                one, two = tokens[image, patch], tokens[image, other]
                expected = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
                assert maps.similarity[image, query, other].item() == pytest.approx(expected, abs=1e-5)
    assert maps.chosen(0).nonzero().tolist() == [[6]]


def test_the_middle_and_two_more_are_the_default(images, make_mae):
    assert token_similarity(images, make_mae().encoder).places == ((1, 2), (0, 1), (2, 3))


def test_chosen_patches_are_outlined_and_the_others_coloured(images, make_mae, boxes):
    maps = token_similarity(images, make_mae().encoder, PLACES, note="a note")
    figure = draw_similarity_maps(maps)
    names = ["patch 1, 2", "patch 0, 0"]
    assert [panel.get_title() for panel in figure.axes[:3]] == ["original", *names]
    assert figure.get_supxlabel().endswith("\na note")
    for row in range(3):
        original, *drawn = figure.axes[3 * row : 3 * row + 3]
        assert boxes(original) == {name: [place] for name, place in zip(names, PLACES, strict=True)}
        for query, panel in enumerate(drawn):
            values = maps.similarity[row, query]
            others = values[~maps.chosen(query)]
            shown = panel.images[0].get_array()
            assert boxes(panel) == {names[query]: [PLACES[query]]}
            assert shown.mask.nonzero() == PLACES[query]
            assert torch.equal(torch.tensor(shown.compressed()), others)
            assert panel.get_xlabel() == f"{others.min():.2f} to {others.max():.2f}"
            assert to_hex(panel.collections[0].get_edgecolor()[0]) == SERIES[query]


def test_the_command_draws_a_run(tmp_path, make_mae):
    save_encoder(make_mae().encoder, tmp_path / "run" / "encoder")
    data = Scenes(size=(36, 48), train_size=2, val_size=3)
    options = {"run": str(tmp_path / "run"), "data": data, "places": PLACES, "num_images": 2}
    assert draw_similarity(**options, out=str(tmp_path / "a.svg")).read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "a.gif"}, "out must end with"),
        ({"places": []}, "places must name at least one patch"),
        ({"places": [(3, 0)]}, "in the grid of 3 × 4 patches, got row 3, column 0"),
        ({"places": [(0, -1)]}, "got row 0, column -1"),
    ],
)
def test_wrong_options_of_the_command(tmp_path, make_mae, options, words):
    save_encoder(make_mae().encoder, tmp_path / "run" / "encoder")
    options = {"out": "a.png"} | options
    data = Scenes(size=(36, 48), train_size=2, val_size=2)
    with pytest.raises(UserError, match=words):
        draw_similarity(
            data=data, run=str(tmp_path / "run"), **options | {"out": str(tmp_path / options["out"])}
        )
    assert not (tmp_path / "a.png").exists()
