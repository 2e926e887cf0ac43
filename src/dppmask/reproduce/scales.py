"""A scale: how much of everything, the same for every experiment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dppmask.errors import UserError, nearest
from dppmask.recipes import shipped_recipes
from dppmask.reproduce.reading import EXPERIMENTS, check_keys, experiment_names, read_mapping
from dppmask.reproduce.request import Request

FOLDER = f"{EXPERIMENTS}scales/"
FOR = "for"  # in an evaluation: name of a method → what differs
AFTER = "after"  # in an evaluation: name of one that leaves something in the run folder for it


@dataclass(frozen=True)
class Speed:
    """What a method does per second here, as measured, for the plan.

    Attributes:
        images_per_second: Of pre-training.
        hardware: On what.
    """

    images_per_second: float
    hardware: str


@dataclass(frozen=True)
class Rate:
    """What a device is taken to compute, for the plan of what was never measured.

    Attributes:
        tflops: 1e12 floating-point operations per second.
        hardware: Which device, and how much of its peak that is.
    """

    tflops: float
    hardware: str


@dataclass(frozen=True)
class Scale:
    """How runs of each method are trained and scored.

    Attributes:
        name: "tiny".
        about: What it is good for, in a sentence.
        seeds: Of the runs.
        pretrain: Name of a method in experiments → what all its runs share.
        evaluate: Name of an evaluation in experiments → how it is done. What a scale leaves out is not
            measured at it.
        differing: Name of an evaluation → name of a method → what is done otherwise for its runs.
        after: Name of an evaluation → the one whose leavings in the run folder it reads.
        sweeps: Name of an option that an experiment sweeps → its values.
        speeds: Name of a method → its measured speed.
        seconds: Name of an evaluation → measured seconds.
        images: Name of a method → its training images, for the plan, where its data do not say.
        assumed: What a device computes; for the plan of methods without a measured speed.
        choices: Name of an experiment → what was chosen for it at this scale alone, in sentences.
    """

    name: str
    about: str
    seeds: tuple[int, ...]
    pretrain: Mapping[str, Request]
    evaluate: Mapping[str, Request]
    differing: Mapping[str, Mapping[str, Request]] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    sweeps: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    assumed: Rate | None = None
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def method(self, name: str) -> Request:
        """What runs of a method share.

        Raises:
            UserError: If the scale knows no such method.
        """
        if name not in self.pretrain:
            raise UserError(
                f"scale {self.name} does not say how to pre-train {name}; {nearest(name, self.pretrain)}"
            )
        return self.pretrain[name]

    def evaluation(self, name: str, method: str | None) -> Request:
        """How runs of a method are evaluated; the method is None where nothing is trained."""
        above = self.differing.get(name, {}).get(method or "")
        return self.evaluate[name] if above is None else self.evaluate[name].then(above)


def scale_names() -> list[str]:
    """The shipped scales."""
    return [name.removeprefix(FOLDER) for name in shipped_recipes() if name.startswith(FOLDER)]


def load_scale(name: str) -> Scale:
    """A shipped scale by name.

    Raises:
        UserError: If there is none of this name, or its file says something that is not known.
    """
    path = shipped_recipes().get(FOLDER + name)
    if path is None:
        raise UserError(
            f"scale must be one of the shipped ones, got {name!r}; {nearest(name, scale_names())}"
        )
    content = check_keys(
        read_mapping(path),
        str(path),
        required=("about", "seeds", "pretrain", "evaluate"),
        optional=("sweeps", "speeds", "seconds", "images", "assumed", "choices"),
    )
    differing = {key: entry[FOR] for key, entry in content["evaluate"].items() if FOR in entry}
    for key, entries in differing.items():
        check_keys(entries, f"{path}: {FOR} of {key}", optional=content["pretrain"])
    after = {key: entry[AFTER] for key, entry in content["evaluate"].items() if AFTER in entry}
    for key, name in after.items():
        if name not in content["evaluate"]:
            raise UserError(f"{path}: {AFTER} of {key}: {nearest(name, content['evaluate'])}")
    check_keys(content.get("choices", {}), f"{path}: choices", optional=experiment_names())
    shared = {
        key: {name: value for name, value in entry.items() if name not in (FOR, AFTER)}
        for key, entry in content["evaluate"].items()
    }
    return Scale(
        name,
        content["about"],
        tuple(content["seeds"]),
        {key: Request.of(entry) for key, entry in content["pretrain"].items()},
        {key: Request.of(entry) for key, entry in shared.items()},
        {key: {one: Request.of(entry) for one, entry in each.items()} for key, each in differing.items()},
        after,
        {key: tuple(values) for key, values in content.get("sweeps", {}).items()},
        {key: Speed(**entry) for key, entry in content.get("speeds", {}).items()},
        content.get("seconds", {}),
        content.get("images", {}),
        Rate(**content["assumed"]) if "assumed" in content else None,
        {key: tuple(sentences) for key, sentences in content.get("choices", {}).items()},
    )
