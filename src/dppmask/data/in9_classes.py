"""The nine superclasses of ImageNet-9, and which classes of ImageNet-1k belong to them."""

import json
from pathlib import Path

import torch
from torch import Tensor

from dppmask.errors import UserError

NUM_IMAGENET = 1000
UNMAPPED = -1

# Folder names of the release; sorted, they are the labels 0 to 8.
FOLDERS = (
    "00_dog",
    "01_bird",
    "02_wheeled vehicle",
    "03_reptile",
    "04_carnivore",
    "05_insect",
    "06_musical instrument",
    "07_primate",
    "08_fish",
)

# Indices of ImageNet-1k (sorted WordNet ids), superclass by superclass, as ranges with both ends.
_MEMBERS = (
    "151-170 173-268",
    "7-24 87-100 127-146",
    "407-408 428 436 444 468 511 547 555 561 565 569 573 586 603 609 612 627 656 661 665 670-671 675 690 705 "
    "717 734 751 757 791 802-803 817 820 829 847 864 866-867 870 880",
    "33-68",
    "269-280 286-299 356-362 387-388",
    "300-326",
    "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 875 881 889",
    "365-384",
    "0-6 389-397",
)


def imagenet_to_in9() -> Tensor:
    """The superclass of each class of ImageNet-1k, int64 ``[1000]``; -1 for the 630 that have none.

    Source: Xiao et al. (2020), *Noise or Signal: The Role of Image Backgrounds in Object Recognition*, the
    file in_to_in9.json of their release.
    """
    superclass = torch.full((NUM_IMAGENET,), UNMAPPED)
    for label, members in enumerate(_MEMBERS):
        for part in members.split():
            first, _, last = part.partition("-")
            superclass[int(first) : int(last or first) + 1] = label
    return superclass


def read_class_map(path: str | Path) -> Tensor:
    """The class of each output of a classifier, int64 ``[C]``, from a file such as in_to_in9.json.

    The file holds ``{"0": 8, "1": -1, …}``: output → class, -1 for outputs that belong to none.

    Raises:
        UserError: If the file cannot be read, or its keys are not 0 to C - 1.
    """
    try:
        content = {int(output): int(label) for output, label in json.loads(Path(path).read_text()).items()}
    except OSError as error:
        raise UserError(f"cannot read the class map {path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f'the class map {path} must hold {{"output": class}} in whole numbers ({error})'
        ) from None
    if sorted(content) != list(range(len(content))) or min(content.values(), default=UNMAPPED - 1) < UNMAPPED:
        raise UserError(f"the class map {path} must name the outputs 0 to C - 1, each with its class or -1")
    return torch.tensor([content[output] for output in range(len(content))])
