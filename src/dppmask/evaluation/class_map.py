"""Which class of the data each output of a classifier stands for, and what it then answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.data import ImageNetInfo
from torch import Tensor

from dppmask.data.imagenet import IMAGENET100
from dppmask.data.in9 import class_names
from dppmask.data.in9_classes import FOLDERS, NUM_IMAGENET, UNMAPPED, imagenet_to_in9, read_class_map
from dppmask.errors import UserError

IN9_NAMES = class_names(list(FOLDERS))
_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True, eq=False)
class ClassMap:
    """The class of each output.

    Attributes:
        classes: int64 ``[C]``, from 0 to K - 1; -1 for outputs that stand for none.
        names: Of the K classes.
        source: Where the map comes from, in words.
    """

    classes: Tensor
    names: list[str]
    source: str

    @property
    def is_complete(self) -> bool:
        """Whether every output stands for a class."""
        return bool((self.classes != UNMAPPED).all())

    @property
    def missing(self) -> list[int]:
        """Classes that no output stands for: their images are never right."""
        return sorted(set(range(len(self.names))) - set(self.classes.tolist()))

    def answers(self, logits: Tensor) -> Tensor:
        """By the official rule: the class of the largest logit of ``[n, C]``, int64 ``[n]``; -1 is wrong."""
        return self.classes[logits.argmax(dim=1)]

    def restricted_answers(self, logits: Tensor) -> Tensor:
        """The class of the largest of those logits that stand for a class, int64 ``[n]``."""
        return self.answers(logits.masked_fill(self.classes == UNMAPPED, -torch.inf))


def find_class_map(
    names: Sequence[str], outputs: Sequence[str] | None, num_outputs: int, *, classes: str = "auto"
) -> ClassMap:
    """The map from the outputs of a classifier to the classes of the data.

    Args:
        names: Of the data's classes.
        outputs: Names of the outputs; None if they have none.
        num_outputs: C.
        classes: "auto" = by name, else by WordNet id, else by number (1000 = ImageNet-1k); "imagenet-1k" and
            "imagenet-100" = these outputs, in the order of their WordNet ids; or a file as
            :func:`~dppmask.data.in9_classes.read_class_map` reads it.

    Raises:
        UserError: If outputs and classes do not fit together.
    """
    if classes == "imagenet-1k":
        return _of_imagenet(range(NUM_IMAGENET), names, num_outputs, "ImageNet-1k")
    if classes == "imagenet-100":
        return _of_imagenet([index for index, _ in IMAGENET100], names, num_outputs, "ImageNet-100")
    if classes != "auto":
        return _from_file(classes, names, num_outputs)
    if outputs is not None and set(outputs) & set(names):
        known = {name: label for label, name in enumerate(names)}
        return ClassMap(
            torch.tensor([known.get(name, UNMAPPED) for name in outputs]), list(names), "equal class names"
        )
    if list(names) == IN9_NAMES:
        if outputs is not None and all(_WORDNET_ID.fullmatch(name) for name in outputs):
            return _of_imagenet(_indices(outputs), names, num_outputs, "WordNet ids of ImageNet-1k")
        if num_outputs == NUM_IMAGENET:
            return _of_imagenet(range(NUM_IMAGENET), names, num_outputs, "ImageNet-1k")
    raise UserError(
        f"cannot tell which of the {len(names)} classes ({names[0]}, …) the {num_outputs} outputs of the "
        "classifier stand for; set classes to imagenet-1k, imagenet-100 or a JSON file {output: class}"
    )


def _of_imagenet(indices: Sequence[int], names: Sequence[str], num_outputs: int, source: str) -> ClassMap:
    """For outputs that stand for these classes of ImageNet-1k."""
    if list(names) != IN9_NAMES:
        raise UserError(
            f"{source} has a map to the nine classes of ImageNet-9, but the data has {len(names)} "
            f"({names[0]}, …); set classes to a JSON file {{output: class}}"
        )
    if num_outputs != len(indices):
        raise UserError(f"{source} has {len(indices)} classes, but the classifier has {num_outputs} outputs")
    return ClassMap(imagenet_to_in9()[torch.tensor(indices)], list(names), source)


def _indices(wordnet_ids: Sequence[str]) -> list[int]:
    """Their places among the 1000 of ImageNet-1k."""
    places = {name: index for index, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    if unknown := [name for name in wordnet_ids if name not in places]:
        raise UserError(f"the outputs {', '.join(unknown[:5])} are not among the classes of ImageNet-1k")
    return [places[name] for name in wordnet_ids]


def _from_file(path: str, names: Sequence[str], num_outputs: int) -> ClassMap:
    mapped = read_class_map(path)
    if len(mapped) != num_outputs:
        raise UserError(f"{path} maps {len(mapped)} outputs, but the classifier has {num_outputs}")
    if int(mapped.max()) >= len(names):
        raise UserError(f"{path} names class {int(mapped.max())}, but the data has 0 to {len(names) - 1}")
    return ClassMap(mapped, list(names), path)
