import json

import pytest
import torch

from dppmask.data.imagenet import IMAGENET100
from dppmask.data.in9_classes import imagenet_to_in9
from dppmask.errors import UserError
from dppmask.evaluation.class_map import IN9_NAMES, ClassMap, find_class_map

WORDNET_IDS = [wordnet_id for _, wordnet_id in IMAGENET100]


def test_answers_by_both_rules():
    class_map = ClassMap(torch.tensor([1, -1, 0, 1]), ["a", "b"], "")
    logits = torch.tensor([[0.0, 9, 1, 2], [5, 1, 0, 0], [-8, -7, -9, -9]])
    assert class_map.answers(logits).tolist() == [-1, 1, -1]
    assert class_map.restricted_answers(logits).tolist() == [1, 1, 1]
    assert not class_map.is_complete
    assert class_map.missing == []


def test_outputs_are_found_by_name_in_any_order():
    found = find_class_map(["a", "b", "c"], ["c", "x", "a"], 3)
    assert found.classes.tolist() == [2, -1, 0]
    assert found.missing == [1]


def test_outputs_of_imagenet_are_found_by_number_by_id_and_by_name():
    assert torch.equal(find_class_map(IN9_NAMES, None, 1000).classes, imagenet_to_in9())
    whole = find_class_map(IN9_NAMES, [f"class {i}" for i in range(1000)], 1000, classes="imagenet-1k")
    assert torch.equal(whole.classes, imagenet_to_in9())
    by_id = find_class_map(IN9_NAMES, WORDNET_IDS, 100)
    by_place = find_class_map(IN9_NAMES, None, 100, classes="imagenet-100")
    assert torch.equal(by_id.classes, by_place.classes)
    assert (by_id.classes >= 0).sum() == 42
    assert [IN9_NAMES[label] for label in by_id.missing] == ["fish"]
    turned = find_class_map(IN9_NAMES, WORDNET_IDS[::-1], 100)
    assert torch.equal(turned.classes.flip(0), by_id.classes)


def test_a_file_says_what_outputs_stand_for(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"0": 1, "1": -1}))
    assert find_class_map(["a", "b"], None, 2, classes=str(path)).classes.tolist() == [1, -1]
    with pytest.raises(UserError, match="maps 2 outputs, but the classifier has 3"):
        find_class_map(["a", "b"], None, 3, classes=str(path))
    with pytest.raises(UserError, match="names class 1, but the data has 0 to 0"):
        find_class_map(["a"], None, 2, classes=str(path))


@pytest.mark.parametrize(
    ("names", "outputs", "count", "classes", "message"),
    [
        (IN9_NAMES, None, 100, "auto", "set classes to imagenet-1k, imagenet-100"),
        (["a", "b"], ["x", "y"], 2, "auto", "cannot tell which of the 2 classes"),
        (["a", "b"], None, 1000, "imagenet-1k", "nine classes of ImageNet-9, but the data has 2"),
        (IN9_NAMES, None, 10, "imagenet-1k", "ImageNet-1k has 1000 classes, but the classifier has 10"),
        (IN9_NAMES, None, 1000, "imagenet-100", "has 100 classes, but the classifier has 1000"),
        (IN9_NAMES, ["n99999999"], 1, "auto", "n99999999 are not among the classes"),
        (IN9_NAMES, None, 9, "none.json", "cannot read the class map none.json"),
    ],
)
def test_outputs_that_do_not_fit(names, outputs, count, classes, message):
    with pytest.raises(UserError, match=message):
        find_class_map(names, outputs, count, classes=classes)
