"""A record of Reconstructions becomes the comparison that live models give."""

import pytest
import torch

from dppmask.data.png import to_png
from dppmask.errors import UserError
from dppmask.evaluation.strategies import label_of
from dppmask.figures.reconstruction import COLOURS, compare, which_boxes
from dppmask.figures.reconstructions import comparison_of, draw
from dppmask.masks import DPPMask, KDPPMask, RandomMask
from dppmask.specs import describe


@pytest.fixture
def live(make_mae, images):
    model = make_mae()
    return compare(images, (model, RandomMask()), (model, DPPMask(0.1)), mask_ratio=0.5)


@pytest.fixture
def record(live):
    """What the protocol would write of it, with another strategy between the two."""
    strategies = [RandomMask(), KDPPMask(), DPPMask(0.1)]
    labels = [label_of(strategy) for strategy in strategies]

    def made(row):
        sources = (live.random, live.dpp, live.dpp)
        return [
            {
                "strategy": label,
                "visible": (~source.mask.masked[row]).nonzero().flatten().tolist(),
                "reconstruction": to_png(source.images[row]),
            }
            for label, source in zip(labels, sources, strict=True)
        ]

    shown = [
        {"image": row, "grid": [3, 4], "original": to_png(image), "made": made(row)}
        for row, image in enumerate(live.originals)
    ]
    described = [{"strategy": label, **describe(s)} for label, s in zip(labels, strategies, strict=True)]
    return {"tables": {"shown": shown, "strategies": described}}


def test_a_record_says_as_much_as_live_models(record, live):
    read = comparison_of(record["tables"])
    assert (read.random.name, read.dpp.name) == ("random masks", "DPP masks, τ = 0.1")
    assert read.grid == (3, 4)
    assert torch.equal(read.originals, live.originals)
    for of_record, of_models in ((read.random, live.random), (read.dpp, live.dpp)):
        assert torch.equal(of_record.images, of_models.images)
        assert torch.equal(of_record.mask.masked, of_models.mask.masked)


def test_original_random_and_dpp_are_drawn_with_their_boxes(record, boxes):
    figure = draw([record])
    assert [axes.get_title() for axes in figure.axes[:4]] == [
        "original",
        "visible patches",
        "random masks",
        "DPP masks, τ = 0.1",
    ]
    chosen = which_boxes(comparison_of(record["tables"]))
    both, only_random, only_dpp = (
        {(i // 4, i % 4) for i in range(12) if chosen[name][2, i]} for name in COLOURS
    )
    found = {name: set(places) for name, places in boxes(figure.axes[9]).items()}
    assert found == dict(zip(COLOURS, (both, only_random, only_dpp), strict=True))


def test_what_cannot_be_drawn(record):
    with pytest.raises(UserError, match="Reconstructions draws one record, got 2"):
        draw([record, record])
    nothing = {"tables": record["tables"] | {"shown": []}}
    with pytest.raises(UserError, match="shows no image; evaluate with num_shown above 0"):
        draw([nothing])
    others = {"tables": record["tables"] | {"strategies": record["tables"]["strategies"][:2]}}
    with pytest.raises(UserError, match="has no DPP masks to draw; add DPPMask to masks"):
        draw([others])
