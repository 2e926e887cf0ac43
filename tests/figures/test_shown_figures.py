"""Pictures drawn from records alone are those of the images and masks that were measured."""

import json

import pytest
import torch

from dppmask.data.scene_variants import SceneVariants
from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation import MaskStatistics, Subject, VariantExamples
from dppmask.evaluation.variant_examples import background_examples
from dppmask.figures.background_examples import draw_examples
from dppmask.figures.mask_gallery import title_of
from dppmask.figures.mask_statistics import PANELS, draw_statistics, sweeps
from dppmask.figures.records import draw_records
from dppmask.figures.shown_masks import recorded_gallery
from dppmask.figures.style import figure_bytes
from dppmask.masks import DPPMask, KDPPMask, RandomMask

MASKS = [DPPMask(0.1, source="pixels"), DPPMask(0.9, source="pixels"), KDPPMask(source="pixels")]


@pytest.fixture(scope="module")
def record():
    protocol = MaskStatistics(MASKS, mask_ratio=0.5, image_size=32, patch_size=8, num_shown=2)
    result = protocol.run(Subject(), Scenes(size=32, train_size=1, val_size=4))
    return json.loads(json.dumps({"tables": result.tables}))


def test_a_gallery_is_what_the_table_says(record):
    tables = record["tables"]
    gallery = recorded_gallery(tables["shown"], tables["strategies"])
    assert list(gallery.masks) == [title_of(mask) for mask in [RandomMask(), *MASKS]]
    assert (gallery.images.shape, gallery.grid) == ((2, 3, 32, 32), (4, 4))
    for number, mask in enumerate(gallery.masks.values()):
        assert mask.num_masked == 8
        for row, shown in enumerate(tables["shown"]):
            stored = shown["masks"][number]
            assert mask.ids_mask[row].tolist() == stored["masked"]
            if stored["gains"] is None:
                assert mask.scores is None
            else:
                assert torch.equal(mask.scores[row], torch.tensor(stored["gains"]))


def test_masks_stand_below_the_statistics_of_the_same_record(record, boxes):
    figure = draw_records("MaskStatistics", [record])
    above, below = figure.subfigs
    assert [axes.get_title(loc="left") for axes in above.axes] == [panel.title for panel in PANELS.values()]
    assert len(below.axes) == 2 * (1 + 4)
    assert below.axes[0].get_title() == "original"
    gains = record["tables"]["shown"][1]["masks"][1]["gains"]
    picks = [divmod(patch, 4) for patch, gain in enumerate(gains) if gain > 0]
    assert boxes(below.axes[5 + 2]) == {"greedy picks": picks}
    assert figure_bytes(figure) == figure_bytes(draw_records("MaskStatistics", [record]))


def test_without_shown_masks_there_are_statistics_alone(record):
    tables = {name: rows for name, rows in record["tables"].items() if name != "shown"}
    figure = draw_records("MaskStatistics", [{"tables": tables}])
    assert figure_bytes(figure) == figure_bytes(draw_statistics(sweeps(tables)))


def test_examples_of_a_record_look_like_those_of_the_data():
    scenes = Scenes(size=32, train_size=2, val_size=6, task="single")
    result = VariantExamples(num_images=2).run(Subject(), scenes)
    record = {"tables": json.loads(json.dumps(result.tables))}
    expected = draw_examples(background_examples(SceneVariants(scenes), 2))
    assert figure_bytes(draw_records("VariantExamples", [record])) == figure_bytes(expected)
    record["tables"]["shown"][1]["images"]["only_fg"] = None
    drawn = draw_records("VariantExamples", [record])
    assert [len(axes.images) for axes in drawn.axes] == [1] * 9 + [0] + [1] * 6
    with pytest.raises(UserError, match="VariantExamples draws one record, got 2"):
        draw_records("VariantExamples", [record, record])
