"""Statistics of masks against the purge ratio: a curve for each family of strategies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Curve:
    """One statistic of one family of masks, against the purge ratio.

    Attributes:
        purge_ratios: τ, ascending.
        values: At each τ.
        standard_errors: At each τ.
    """

    purge_ratios: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    standard_errors: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Sweep:
    """One statistic of all strategies.

    Attributes:
        curves: Name of the family ("" if there is one only) → its curve.
        random: Value and standard error of random masks, or None.
    """

    curves: dict[str, Curve]
    random: tuple[float, float] | None = None


Row = Mapping[str, Any]


def sweep_of(rows: Sequence[Row], strategies: Sequence[Row]) -> Sweep:
    """Sort rows of one statistic by family and purge ratio; strategies without one, but random, are left out.

    A family is what a strategy is beside its purge ratio: class, source, bandwidth.

    Args:
        rows: Label of the strategy, value and standard error.
        strategies: Label, class path and arguments.
    """
    described = {row["strategy"]: row for row in strategies}
    families = _families(described)
    curves: dict[str, Curve] = {}
    random = None
    for row in sorted(rows, key=lambda row: _purge_ratio(described[row["strategy"]])):
        label = row["strategy"]
        if label in families:
            curve = curves.setdefault(families[label], Curve())
            curve.purge_ratios.append(_purge_ratio(described[label]))
            curve.values.append(row["value"])
            curve.standard_errors.append(row["standard_error"])
        elif described[label]["class_path"].endswith(".RandomMask"):
            random = row["value"], row["standard_error"]
    return Sweep(curves, random)


def _purge_ratio(strategy: Mapping[str, Any]) -> float:
    """τ of a described strategy; -1 where it has none."""
    return strategy["init_args"].get("purge_ratio", -1.0)


def _families(strategies: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Label → name of the family, made of the options in which families differ; "" if there is only one."""
    options = {
        label: {"class": row["class_path"].rpartition(".")[2], **row["init_args"]}
        for label, row in strategies.items()
        if "purge_ratio" in row["init_args"]
    }
    names = {name for values in options.values() for name in values} - {"purge_ratio"}
    differing = [name for name in sorted(names) if len({str(v.get(name)) for v in options.values()}) > 1]
    return {
        label: ", ".join(f"{name} {values[name]}" for name in differing if name in values)
        for label, values in options.items()
    }
