"""Accuracy under other backgrounds: per variant, the gap between two, and what is taken for what."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from dppmask.evaluation.background_answers import Answers
from dppmask.evaluation.class_map import ClassMap
from dppmask.evaluation.metrics import Scored, accuracy

GAP = "bg_gap"
GAP_OF = ("mixed_same", "mixed_rand")
RESTRICTED = "restricted_"
NO_CLASS = "none of them"  # what an output that stands for no class is counted as


def score_variants(answers: dict[str, Answers], class_map: ClassMap) -> Scored:
    """Accuracy of each variant, and the gap where both its variants are there.

    Where outputs stand for no class, the restricted rule is scored as well, as ``restricted_…``.
    """
    rules = {"": "official"} if class_map.is_complete else {"": "official", RESTRICTED: "restricted"}
    found: Scored = {}
    for prefix, rule in rules.items():
        for name, given in answers.items():
            found[prefix + name] = accuracy(getattr(given, rule), given.labels)
        if set(GAP_OF) <= answers.keys():
            found[prefix + GAP] = background_gap(*(answers[name] for name in GAP_OF), rule=rule)
    return found


def background_gap(same: Answers, rand: Answers, *, rule: str = "official") -> tuple[float, float]:
    """Accuracy on mixed_same minus that on mixed_rand, and its standard error.

    The same foregrounds stand before both backgrounds, so the error is that of a mean of n differences, each
    -1, 0 or 1; where foregrounds differ (files are missing or unreadable), that of independent images.

    Args:
        same: On mixed_same.
        rand: On mixed_rand.
        rule: "official" or "restricted".
    """
    right = [(getattr(given, rule) == given.labels).double() for given in (same, rand)]
    gap = (right[0].mean() - right[1].mean()).item()
    if not are_paired(same, rand):
        variances = [(share.mean() * (1 - share.mean()) / len(share)).item() for share in right]
        return gap, math.sqrt(sum(variances))
    place = {foreground: position for position, foreground in enumerate(rand.foregrounds)}
    order = torch.tensor([place[foreground] for foreground in same.foregrounds])
    differences = right[0] - right[1][order]
    return gap, (differences.std(correction=0) / math.sqrt(len(differences))).item()


def are_paired(one: Answers, other: Answers) -> bool:
    """Whether both show the same foregrounds, each once."""
    names = set(one.foregrounds)
    return len(names) == len(one.foregrounds) == len(other.foregrounds) and names == set(other.foregrounds)


def variant_rows(answers: dict[str, Answers], found: Scored) -> list[dict[str, Any]]:
    """A row per variant: images, accuracy and standard error by each rule."""
    rows = []
    for name, given in answers.items():
        row: dict[str, Any] = {"variant": name, "images": len(given.labels)}
        for prefix in ("", RESTRICTED):
            if prefix + name in found:
                row[f"{prefix}top1"], row[f"{prefix}standard_error"] = found[prefix + name]
        rows.append(row)
    return rows


def confusion_rows(answers: dict[str, Answers], names: Sequence[str]) -> list[dict[str, Any]]:
    """A row per variant and class: how many of its images are taken for what, by the official rule."""
    size = len(names)
    columns = [*names, NO_CLASS]
    rows = []
    for variant, given in answers.items():
        predicted = torch.where(given.official < 0, size, given.official)
        counts = (given.labels * (size + 1) + predicted).bincount(minlength=size * (size + 1))
        for name, row in zip(names, counts.view(size, size + 1).tolist(), strict=True):
            taken_for = {column: count for column, count in zip(columns, row, strict=True) if count}
            rows.append({"variant": variant, "class": name, "predicted": taken_for})
    return rows
