"""Outlines become the pixels that pycocotools packs, and that lie within the polygon."""

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from pycocotools import mask as coco_mask

from dppmask.data.coco_masks import fill, unpack_runs
from dppmask.rng import fold_in

SIZES = [(1, 1), (5, 3), (40, 70), (300, 200)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_packed_runs_are_the_pixels_that_were_packed(height, width, share):
    mask = (torch.rand(height, width, generator=fold_in(0, height)) < share).numpy()
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = packed["counts"].decode()
    assert np.array_equal(fill({"size": [height, width], "counts": counts}, height, width), mask)
    assert np.array_equal(fill({"size": [height, width], "counts": unpack_runs(counts)}, height, width), mask)


def test_plain_runs_pack_as_pycocotools_packs_them():
    runs = [0, 3, 1000, 5, 70_000, 1, 2, 28_989]
    packed = coco_mask.frPyObjects({"size": [100, 1000], "counts": runs}, 100, 1000)
    assert unpack_runs(packed["counts"].decode()) == runs


def test_polygons_cover_the_pixels_whose_middle_lies_within():
    points = [(10.5, 5.0), (50.2, 12.0), (60.0, 44.7), (30.0, 33.0), (8.0, 47.0)]
    ours = fill([[value for point in points for value in point]], 50, 70)
    rows, columns = np.mgrid[:50, :70]
    middles = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    inside = Outline(points).contains_points(middles).reshape(50, 70)
    assert (ours ^ inside).sum() < 0.01 * inside.sum()  # the outline itself is rounded


def test_several_polygons_are_one_object():
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [5, 3, 8, 3, 8, 6, 5, 6]
    both = fill([left, right], 6, 8)
    assert np.array_equal(both, fill([left], 6, 8) | fill([right], 6, 8))
    assert both.sum() == 4 + 9


@pytest.mark.parametrize("polygons", [[], [[1, 1, 3, 3]], [[]]])
def test_polygons_without_an_area_cover_nothing(polygons):
    assert not fill(polygons, 4, 5).any()
