"""Mask strategies side by side: which take part, what they may read, and how they are called."""

from collections.abc import Mapping, Sequence
from typing import Any

from dppmask import specs
from dppmask.data.base import ImageSource, Split
from dppmask.errors import UserError
from dppmask.evaluation.base import Part, Subject
from dppmask.masks import DPPMask, MaskStrategy, RandomMask
from dppmask.masks.features import Source


def compared_strategies(
    masks: Sequence[MaskStrategy] | None, subject: Subject, *, protocol: str
) -> dict[str, MaskStrategy]:
    """Strategies by label, on the subject's device; RandomMask always takes part and comes first.

    Args:
        masks: The strategies; None = DPPMask beside RandomMask.
        subject: Whose encoder gives tokens and stands in for a teacher.
        protocol: Who asks.

    Raises:
        UserError: If two are the same, one does not hide exactly the number asked for, or one reads what only
            an encoder gives and there is none.
    """
    default = [DPPMask(source=default_source(subject))]
    others = default if masks is None else [mask for mask in masks if not isinstance(mask, RandomMask)]
    chosen = [RandomMask(), *others]
    strategies = {label_of(mask): mask.to(subject.compute.device) for mask in chosen}
    if len(strategies) < len(chosen):
        raise UserError(f"masks must all differ, got {', '.join(map(label_of, chosen))}")
    for mask in strategies.values():
        check_strategy(mask, subject, protocol=protocol)
    return strategies


def check_strategy(mask: MaskStrategy, subject: Subject, *, protocol: str) -> None:
    """Raise UserError if a strategy hides another number than asked for, or reads what is not there."""
    label = label_of(mask)
    if not mask.exact:
        raise UserError(f"{protocol} compares equal numbers of patches, not {label}; use exact=True")
    check_known(subject, {label: mask.needs})


def check_known(subject: Subject, needs: Mapping[str, frozenset[str]]) -> None:
    """Raise UserError if something is needed that only an encoder gives, and there is none.

    Args:
        subject: What is evaluated.
        needs: Who needs what, in the words of ``MaskStrategy.needs``.
    """
    known = {"images", "tokens", "teacher", "attention"} if subject.encoder else {"images"}
    for name, needed in needs.items():
        if missing := needed - known:
            raise UserError(
                f"{name} needs {', '.join(sorted(missing))}, which only an encoder gives; "
                "pass one, or use source 'pixels'"
            )


def default_source(subject: Subject) -> Source:
    """What patches are compared by: tokens, or pixels where there is no encoder."""
    return "tokens" if subject.encoder else "pixels"


def open_several(data: ImageSource, split: Split, *, protocol: str) -> Part:
    """A part with enough images for a standard error.

    Raises:
        UserError: If there is no such part, or it has fewer than two images.
    """
    part = Part.open(data, split)
    if len(part.images) < 2:
        raise UserError(f"{protocol} needs at least 2 images for a standard error, got {len(part.images)}")
    return part


def label_of(strategy: MaskStrategy) -> str:
    """A short unambiguous name: the class, and the arguments that differ from their defaults.

    >>> label_of(DPPMask(purge_ratio=0.1))
    'DPPMask(purge_ratio=0.1)'
    """
    return _label(specs.describe(strategy))


def _label(spec: Any) -> str:
    if not isinstance(spec, Mapping):
        return str(spec)
    defaults = specs.describe(specs.locate(spec["class_path"]))["init_args"]
    changed = {name: value for name, value in spec["init_args"].items() if defaults.get(name) != value}
    arguments = ", ".join(f"{name}={_label(value)}" for name, value in changed.items())
    name = spec["class_path"].rpartition(".")[2]
    return f"{name}({arguments})" if arguments else name
