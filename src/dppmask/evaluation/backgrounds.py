"""The Backgrounds Challenge: how much of a classifier's accuracy is owed to what is behind the object."""

from collections.abc import Sequence

import torch

from dppmask.data.background_builder import variant_source
from dppmask.data.base import ImageSource
from dppmask.data.variants import VARIANTS, VariantSource
from dppmask.errors import UserError, nearest
from dppmask.evaluation.adversarial_backgrounds import CHALLENGE, challenge
from dppmask.evaluation.background_answers import Answers, ask
from dppmask.evaluation.background_scores import (
    GAP,
    GAP_OF,
    are_paired,
    confusion_rows,
    score_variants,
    variant_rows,
)
from dppmask.evaluation.base import Compute, Part, Protocol, Result, Subject
from dppmask.evaluation.baselines import CHANCE, RANDOM_ENCODER, random_encoder
from dppmask.evaluation.class_map import ClassMap, find_class_map
from dppmask.evaluation.features import Pooling, View
from dppmask.evaluation.judged_classifier import JudgedClassifier, fit_classifier, open_classifier
from dppmask.evaluation.metrics import Scored, errors, values

BACKGROUND_ONLY, CEILING = "background_only", "ceiling"
BASELINES = (CHANCE, BACKGROUND_ONLY, CEILING, RANDOM_ENCODER)


class Backgrounds(Protocol):
    """Accuracy of a classifier on images whose background was removed or exchanged.

    ``original``, ``only_fg``, ``mixed_same``, ``mixed_rand``, … are accuracies, one per variant there is, and
    ``bg_gap`` is mixed_same minus mixed_rand. By the official rule the largest of all outputs counts, and one
    that stands for none of the data's classes is wrong. Where a classifier has such outputs, ``restricted_…``
    are the accuracies if only the others are asked.

    The data are :class:`~dppmask.data.in9.IN9`, :class:`~dppmask.data.scenes.Scenes` with the task "single",
    or any labelled images with object masks. Images of the release are resized to the classifier's input and
    not cropped, as in the official script, since they were cropped before; so are cut-outs of a given size.

    Args:
        classifier: A folder with a classifier, a run that was fine-tuned once, or the timm name of a whole
            classifier. None = a linear head on the frozen features of the encoder, fitted on the data's own
            training part as :class:`~dppmask.evaluation.linear_fast.LinearFast` does.
        weights: For a timm name, a file with its weights; None = those in the local Hugging Face cache.
        classes: Which class each output stands for: "auto", "imagenet-1k", "imagenet-100", or a JSON file
            {output: class} such as in_to_in9.json; see
            :func:`~dppmask.evaluation.class_map.find_class_map`.
        num_backgrounds: For ``challenge``, the share of foregrounds that are recognised before *every*
            only_bg_t background: how many of these to try, evenly spread; 0 leaves it out. The official score
            tries all, which costs a pass per pair.
        pooling: For a fitted head, see :class:`~dppmask.evaluation.features.View`.
        blocks: The same.
        baselines: Which of "chance" (always the most frequent class), "background_only" (what the background
            alone tells, where that is known), "ceiling" (images whose class has an output), "random_encoder"
            (for a fitted head) to report beside.

    Raises:
        UserError: If an argument is outside its range.

    Source: Xiao et al. (2020), *Noise or Signal: The Role of Image Backgrounds in Object Recognition*.
    """

    def __init__(
        self,
        classifier: str | None = None,
        weights: str | None = None,
        classes: str = "auto",
        num_backgrounds: int = 0,
        pooling: Pooling = "cls",
        blocks: int = 1,
        baselines: Sequence[str] = BASELINES,
    ) -> None:
        if weights is not None and classifier is None:
            raise UserError("weights belong to a classifier; name its timm architecture with classifier")
        if num_backgrounds < 0:
            raise UserError(f"num_backgrounds must be at least 0, got {num_backgrounds}")
        for name in baselines:
            if name not in BASELINES:
                raise UserError(f"baseline {name!r} does not exist; {nearest(name, BASELINES)}")
        self.classifier = classifier
        self.weights = weights
        self.classes = classes
        self.num_backgrounds = num_backgrounds
        self.pooling = pooling
        self.blocks = blocks
        self.view = View(pooling, blocks)
        self.baselines = tuple(baselines)

    def run(self, subject: Subject, data: ImageSource, *, seed: int = 0) -> Result:
        """See :meth:`~dppmask.evaluation.base.Protocol.run`.

        The seed decides what a head's penalty is chosen on, and the random encoder.
        """
        source = variant_source(data)
        judged = self._open(subject, data, seed=seed)
        class_map = self._class_map(judged, source)
        answers = ask_all(judged, class_map, source, subject.compute)
        found = score_variants(answers, class_map)
        if self.num_backgrounds:
            found[CHALLENGE] = challenge(judged, class_map, source, subject.compute, self.num_backgrounds)
        baselines = {
            CHANCE: lambda: chance(answers, found),
            BACKGROUND_ONLY: lambda: background_only(source, answers),
            CEILING: lambda: ceiling(answers, class_map),
            RANDOM_ENCODER: lambda: self._random_encoder(subject, data, seed=seed),
        }
        beside = {name: baselines[name]() for name in self.baselines}
        return Result(
            self.name,
            values(found),
            standard_errors=errors(found),
            baselines={name: numbers for name, numbers in beside.items() if numbers},
            tables={
                "variants": variant_rows(answers, found),
                "confusion": confusion_rows(answers, class_map.names),
            },
            notes=_notes(judged, class_map, answers),
        )

    def _open(self, subject: Subject, data: ImageSource, *, seed: int) -> JudgedClassifier:
        if self.classifier is not None:
            return open_classifier(self.classifier, self.weights)
        encoder = subject.require_encoder(f"{self.name} without a classifier")
        return fit_classifier(encoder, data, self.view, subject.compute, seed=seed)

    def _class_map(self, judged: JudgedClassifier, source: VariantSource) -> ClassMap:
        names = Part.open(source, "val").require_classes(self.name)
        return find_class_map(names, judged.output_names, judged.num_outputs, classes=self.classes)

    def _random_encoder(self, subject: Subject, data: ImageSource, *, seed: int) -> dict[str, float]:
        """What a head on an untrained encoder reaches; nothing beside a stored classifier."""
        if self.classifier is not None:
            return {}
        fresh = random_encoder(subject.require_encoder(self.name), seed=seed)
        judged = fit_classifier(fresh, data, self.view, subject.compute, seed=seed, title="random encoder")
        source = variant_source(data)
        class_map = self._class_map(judged, source)
        return values(score_variants(ask_all(judged, class_map, source, subject.compute), class_map))


def ask_all(
    judged: JudgedClassifier, class_map: ClassMap, source: VariantSource, compute: Compute
) -> dict[str, Answers]:
    """The answers about every variant there is."""
    return {name: ask(judged, class_map, source.variant(name), compute) for name in source.variants("val")}


def chance(answers: dict[str, Answers], found: Scored) -> dict[str, float]:
    """Always the class that most images have; before all backgrounds alike, so there is no gap."""
    labels = next(iter(answers.values())).labels
    share = labels.bincount().max().item() / len(labels)
    return {name: 0.0 if name.endswith(GAP) else share for name in found}


def background_only(source: VariantSource, answers: dict[str, Answers]) -> dict[str, float]:
    """What a perfect eye for backgrounds would reach, where the data know."""
    known = {name: source.variant(name).background_only("val") for name in answers}
    shares = {name: share for name, share in known.items() if share is not None}
    if set(GAP_OF) <= shares.keys():
        shares[GAP] = shares[GAP_OF[0]] - shares[GAP_OF[1]]
    return shares


def ceiling(answers: dict[str, Answers], class_map: ClassMap) -> dict[str, float]:
    """Share of images whose class has an output; nothing where all have."""
    if not class_map.missing:
        return {}
    missing = torch.tensor(class_map.missing)
    return {
        name: 1 - torch.isin(given.labels, missing).double().mean().item() for name, given in answers.items()
    }


def _notes(judged: JudgedClassifier, class_map: ClassMap, answers: dict[str, Answers]) -> list[str]:
    """What was decided, in sentences."""
    mean, std = (", ".join(f"{value:.4g}" for value in numbers) for numbers in (judged.mean, judged.std))
    height, width = judged.image_size
    notes = [
        f"classifier: {judged.origin}; {judged.num_outputs} outputs",
        f"images are resized to {height} x {width} and normalised with mean ({mean}), std ({std})",
        f"outputs stand for classes by {class_map.source}",
    ]
    if not class_map.is_complete:
        notes.append(
            f"official rule: {int((class_map.classes < 0).sum())} outputs stand for none of the "
            f"{len(class_map.names)} classes and count as wrong; restricted_: only the others are asked"
        )
    if class_map.missing:
        absent = ", ".join(class_map.names[label] for label in class_map.missing)
        covered = len(class_map.names) - len(class_map.missing)
        notes.append(
            f"no output stands for {absent}: at most {covered} of {len(class_map.names)} classes can be right"
        )
    if absent_variants := [name for name in VARIANTS if name not in answers]:
        notes.append(f"variants that are not there: {', '.join(absent_variants)}")
    if set(GAP_OF) <= answers.keys() and not are_paired(*(answers[name] for name in GAP_OF)):
        notes.append(f"{' and '.join(GAP_OF)} show different foregrounds: the error of {GAP} is not paired")
    notes += [
        f"{name}: {given.num_unreadable} images could not be read and are left out"
        for name, given in answers.items()
        if given.num_unreadable
    ]
    return notes
