"""What a classifier says about the images of one variant."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from dppmask.data.variants import VariantPart, VariantSource
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.class_map import ClassMap
from dppmask.evaluation.features import frozen, part_batches
from dppmask.evaluation.judged_classifier import JudgedClassifier


@dataclass(frozen=True, eq=False)
class Answers:
    """Of n images; those that cannot be read are left out.

    Attributes:
        labels: int64 ``[n]``.
        official: int64 ``[n]``, by the official rule; -1 = an output that stands for no class.
        restricted: int64 ``[n]``, among the outputs that stand for a class.
        foregrounds: Class and name of each foreground, the same in other variants.
        num_unreadable: How many images are left out.
    """

    labels: Tensor
    official: Tensor
    restricted: Tensor
    foregrounds: list[tuple[int, str]]
    num_unreadable: int = 0


def ask(judged: JudgedClassifier, class_map: ClassMap, source: VariantSource, compute: Compute) -> Answers:
    """The answers about the validation part of a variant, by both rules.

    Raises:
        UserError: If the variant has no such part, or it is incomplete.
    """
    part = Part.open(source, "val")
    images = cast(VariantPart, part.images)
    official, restricted, ids = [], [], []
    network = judged.network.to(compute.device)
    with frozen(network, compute):
        for batch in part_batches(part, judged.transform(images), compute, source.selected):
            logits = network(batch.images.to(compute.device)).float().cpu()
            official.append(class_map.answers(logits))
            restricted.append(class_map.restricted_answers(logits))
            ids += batch.sample_ids.tolist()
    foregrounds = [(images.label(index), images.foreground(index)) for index in ids]
    labels = torch.tensor([label for label, _ in foregrounds])
    return Answers(labels, torch.cat(official), torch.cat(restricted), foregrounds, len(images) - len(ids))
