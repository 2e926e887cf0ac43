import json

import pytest
import torch
from timm.data import ImageNetInfo

from dppmask.data.class_list import read_class_list
from dppmask.data.imagenet import IMAGENET100
from dppmask.data.in9_classes import FOLDERS, UNMAPPED, imagenet_to_in9, read_class_map
from dppmask.errors import UserError

SIZES = [116, 52, 42, 36, 35, 27, 26, 20, 16]  # of the release


def test_superclasses_have_the_sizes_of_the_release():
    superclass = imagenet_to_in9()
    assert superclass.shape == (1000,)
    assert [(superclass == label).sum().item() for label in range(len(FOLDERS))] == SIZES
    assert (superclass == UNMAPPED).sum() == 630


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("golden retriever", 0),
        ("robin", 1),
        ("minivan", 2),
        ("green mamba", 3),
        ("lion", 4),
        ("ladybug", 5),
        ("accordion", 6),
        ("gorilla", 7),
        ("goldfish", 8),
        ("tiger cat", UNMAPPED),  # tame cats are no carnivores here
        ("teapot", UNMAPPED),
    ],
)
def test_well_known_animals_and_things_have_their_superclass(word, label):
    info = ImageNetInfo("imagenet-1k")
    (index,) = (
        i for i in range(1000) if word in info.index_to_description(i).lower().split(":")[0].split(", ")
    )
    assert imagenet_to_in9()[index] == label


def test_imagenet100_indices_belong_to_their_wordnet_ids():
    names = ImageNetInfo("imagenet-1k").label_names()
    assert all(names[index] == wordnet_id for index, wordnet_id in IMAGENET100)
    assert [wordnet_id for _, wordnet_id in IMAGENET100] == read_class_list("imagenet100")


def test_of_imagenet100_42_classes_are_mapped_and_none_to_fish():
    superclass = imagenet_to_in9()[torch.tensor([index for index, _ in IMAGENET100])]
    counts = [(superclass == label).sum().item() for label in range(len(FOLDERS))]
    assert counts == [19, 5, 3, 4, 4, 3, 2, 2, 0]


def test_a_stored_map_is_read_as_it_is(tmp_path):
    path = tmp_path / "in_to_in9.json"
    path.write_text(json.dumps({str(i): label for i, label in enumerate(imagenet_to_in9().tolist())}))
    assert torch.equal(read_class_map(path), imagenet_to_in9())


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"0": 1, "2": 0}', '{"0": -2}', '{"0": "dog"}', "{}"])
def test_a_damaged_map_is_one_line(tmp_path, content):
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(UserError, match="class map"):
        read_class_map(path)
    with pytest.raises(UserError, match="cannot read the class map"):
        read_class_map(tmp_path / "none.json")
