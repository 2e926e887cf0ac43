import pytest
import torch
from matplotlib.colors import to_hex

from dppmask.evaluation.pixels import on_pixels
from dppmask.figures.reconstruction import COLOURS, compare, draw_comparison, reconstruct, which_boxes
from dppmask.figures.style import BOTH, DPP, RANDOM
from dppmask.masks import DPPMask, Mask, RandomMask
from dppmask.models.base import MIMOutput
from dppmask.models.mae import MAE
from dppmask.rng import fold_in

GRID = (3, 4)


def some_mask(seed=0):
    return Mask.from_scores(torch.rand(3, 12, generator=fold_in(seed)), 8)


class Oracle(MAE):
    """Predicts the truth, in the space of its loss; with ``offset``, that much beside it."""

    offset = 0.0

    def forward(self, context, mask):
        target = self.target(context.images)
        return MIMOutput(target.mean(), target.mean(-1), target + self.offset)


@pytest.fixture(params=[True, False], ids=["normalised patches", "plain pixels"])
def oracle(request, make_mae):
    model = make_mae(norm_pix_loss=request.param)
    model.__class__ = Oracle
    return model


def test_a_perfect_prediction_gives_the_original(oracle, images, pixels):
    difference = reconstruct(oracle, images, some_mask()).int() - pixels.int()
    assert difference.abs().max() <= 1


def test_an_offset_prediction_is_off_by_its_own_patch_contrast(make_mae, images, pixels):
    model = make_mae(norm_pix_loss=True)
    model.__class__ = Oracle
    model.offset = 0.1
    everything = Mask(torch.ones(3, 12, dtype=torch.bool), 12)
    rebuilt = reconstruct(model, images, everything).float()
    # By hand: 0.1 of the deviation of the normalised patch, times the channel's deviation, in grey levels.
    cells = images.unfold(2, 8, 8).unfold(3, 8, 8)  # [B, C, 3, 4, 8, 8]
    deviation = cells.permute(0, 2, 3, 1, 4, 5).flatten(3).std(-1)  # [B, 3, 4], unbiased
    channel = torch.tensor(model.encoder.std)[None, :, None, None]
    shift = 25.5 * on_pixels(deviation.flatten(1), GRID, (24, 32)) * channel
    expected = (pixels.float() + shift).clamp(max=255)
    assert (rebuilt - expected).abs().max() <= 0.51


def test_visible_pixels_are_exactly_those_of_the_input(make_mae, images, pixels):
    mask = some_mask()
    rebuilt = reconstruct(make_mae(), images, mask)
    hidden = on_pixels(mask.masked, GRID, (24, 32)).expand_as(pixels)
    assert torch.equal(rebuilt[~hidden], pixels[~hidden])
    assert (rebuilt[hidden] != pixels[hidden]).float().mean() > 0.9  # an untrained model knows nothing


def test_the_model_is_left_as_it_was(make_mae, images):
    model = make_mae().train()
    reconstruct(model, images, some_mask())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_both_models_get_the_same_noise(make_mae, images):
    first, second = make_mae(seed=1), make_mae(seed=2)
    same = compare(images, (first, RandomMask()), (second, DPPMask(1.0)), seed=5)
    assert torch.equal(same.random.mask.masked, same.dpp.mask.masked)
    assert not torch.equal(same.random.images, same.dpp.images)


def test_each_model_reads_its_own_tokens(make_mae, images):
    first, second = make_mae(seed=1), make_mae(seed=2)
    strategy = DPPMask(0.0)
    comparison = compare(images, (first, strategy), (second, strategy), mask_ratio=0.5)
    for model, made in ((first, comparison.random), (second, comparison.dpp)):
        with torch.no_grad():
            expected = strategy(model.context(images), 6, generator=fold_in(0))
        assert torch.equal(made.mask.masked, expected.masked)
        assert torch.equal(made.images, reconstruct(model, images, expected))


def test_models_of_different_grids_are_refused(make_mae, images):
    other = make_mae()
    other.encoder.grid = (4, 3)
    with pytest.raises(ValueError, match="same grid"):
        compare(images, (make_mae(), RandomMask()), (other, RandomMask()))


def test_boxes_count_what_is_visible_in_both_or_one(make_mae, images, boxes):
    model = make_mae()
    comparison = compare(images, (model, RandomMask()), (model, DPPMask(0.0)), mask_ratio=0.5)
    random, dpp = ~comparison.random.mask.masked, ~comparison.dpp.mask.masked
    both, only_random, only_dpp = COLOURS
    figure = draw_comparison(comparison)
    for row in range(3):
        original, visible, left, right = figure.axes[4 * row : 4 * row + 4]
        expected = {
            both: [divmod(i, 4) for i in range(12) if random[row, i] and dpp[row, i]],
            only_random: [divmod(i, 4) for i in range(12) if random[row, i] and not dpp[row, i]],
            only_dpp: [divmod(i, 4) for i in range(12) if dpp[row, i] and not random[row, i]],
        }
        assert boxes(original) == {}
        assert boxes(visible) == expected
        assert boxes(left) == {name: expected[name] for name in (both, only_random)}
        assert boxes(right) == {name: expected[name] for name in (both, only_dpp)}
        assert len(expected[both]) + len(expected[only_dpp]) == 6
    assert sum(int(chosen.sum()) for chosen in which_boxes(comparison).values()) == (random | dpp).sum()


def test_white_is_both_red_is_random_blue_is_dpp(make_mae, images):
    model = make_mae()
    figure = draw_comparison(compare(images, (model, RandomMask()), (model, DPPMask(0.0)), mask_ratio=0.5))
    drawn = [
        {c.get_label(): to_hex(c.get_edgecolor()[0]) for c in axes.collections if len(c.get_paths())}
        for axes in figure.axes
    ]
    both, only_random, only_dpp = COLOURS
    assert any(names for names in drawn)
    for names in drawn:
        assert names.items() <= {both: BOTH, only_random: RANDOM, only_dpp: DPP}.items()
    legend = {t.get_text(): to_hex(p.get_facecolor()) for t, p in zip(*_legend(figure), strict=True)}
    assert legend == {both: BOTH, only_random: RANDOM, only_dpp: DPP}


def _legend(figure):
    (legend,) = figure.legends
    return legend.get_texts(), legend.get_patches()
