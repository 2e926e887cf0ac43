"""The challenge proper: foregrounds that are recognised before whatever background."""

import torch
from torch import Tensor

from dppmask.data.compositing import paste
from dppmask.data.variants import VariantPart, VariantSource
from dppmask.errors import UserError
from dppmask.evaluation.base import Compute
from dppmask.evaluation.class_map import ClassMap
from dppmask.evaluation.features import frozen
from dppmask.evaluation.judged_classifier import JudgedClassifier
from dppmask.evaluation.metrics import accuracy
from dppmask.evaluation.progress import reported

CHALLENGE = "challenge"
NEEDED = ("original", "only_bg_t")


def challenge(
    judged: JudgedClassifier, class_map: ClassMap, source: VariantSource, compute: Compute, count: int
) -> tuple[float, float]:
    """Share of foregrounds that are right, by the official rule, before every background; and its error.

    Each foreground is cut out of its original along its mask and pasted on the only_bg_t images one batch
    after another, until it is taken for something else. Images that cannot be read are left out.

    Args:
        judged: The classifier.
        class_map: What its outputs stand for.
        source: The variants.
        compute: Where to compute; the batch size is that of the backgrounds.
        count: How many backgrounds to try, evenly spread over those there are.

    Raises:
        UserError: If a variant that this needs is missing, or images and backgrounds differ in size.

    Source: MadryLab/backgrounds_challenge.
    """
    if missing := [name for name in NEEDED if name not in source.variants("val")]:
        raise UserError(
            f"num_backgrounds needs the variant {missing[0]}; add it, or set num_backgrounds to 0"
        )
    originals = source.variant("original").split("val")
    backgrounds = spread(source.variant("only_bg_t").split("val"), count)
    transform, network = judged.transform(originals), judged.network.to(compute.device)

    def is_right(pasted: Tensor, label: int) -> bool:
        logits = network(transform(pasted)[0].to(compute.device)).float().cpu()
        return bool((class_map.answers(logits) == label).all())

    right = []
    with frozen(network, compute):
        for index in reported(range(len(originals)), CHALLENGE, total=len(originals)):
            sample = originals[index]
            if sample.sample_id != index:
                continue
            if sample.image.shape != backgrounds.shape[1:]:
                raise UserError("num_backgrounds needs images of one size; build them with a size")
            mask, label = originals.mask(index), originals.label(index)
            batches = backgrounds.split(compute.batch_size)
            right.append(all(is_right(paste(sample.image, mask, batch), label) for batch in batches))
    return accuracy(torch.tensor(right), torch.ones(len(right), dtype=torch.bool))


def spread(part: VariantPart, count: int) -> Tensor:
    """Up to ``count`` images of a part that can be read, evenly spread over it: uint8 ``[n, 3, H, W]``.

    Raises:
        UserError: If they differ in size.
    """
    count = min(count, len(part))
    samples = [part[i * len(part) // count] for i in range(count)]
    images = list({sample.sample_id: sample.image for sample in samples}.values())
    if len({image.shape for image in images}) > 1:
        raise UserError("num_backgrounds needs images of one size; build them with a size")
    return torch.stack(images)
