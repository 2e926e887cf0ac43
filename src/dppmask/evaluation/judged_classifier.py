"""Classifiers from wherever they come as one value: a network, its input, the names of its outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dppmask.data.base import ImageSource
from dppmask.data.transforms import EvalTransform
from dppmask.data.variants import VariantPart
from dppmask.errors import UserError
from dppmask.evaluation.base import Compute, Part
from dppmask.evaluation.classifier import Classifier, find_classifier, load_classifier
from dppmask.evaluation.features import View, frozen_features, resize_ratio_of
from dppmask.evaluation.linear_fast import LinearFast
from dppmask.evaluation.published_classifier import load_published
from dppmask.models.encoder import Encoder


@dataclass(frozen=True, eq=False)
class JudgedClassifier:
    """What is evaluated.

    Attributes:
        network: From images ``[B, 3, H, W]`` to logits ``[B, C]``.
        image_size: (height, width) of its input.
        mean: What each channel is normalised with.
        std: The same.
        num_outputs: C.
        output_names: Of the outputs, if they have any.
        origin: Where it comes from, in words.
    """

    network: nn.Module
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_outputs: int
    output_names: list[str] | None
    origin: str

    @classmethod
    def of(cls, classifier: Classifier, origin: str) -> "JudgedClassifier":
        """Of an encoder with a head."""
        encoder, names = classifier.encoder, classifier.class_names
        height, width = encoder.image_size
        return cls(classifier, (height, width), encoder.mean, encoder.std, len(names), names, origin)

    def transform(self, images: VariantPart) -> EvalTransform:
        """What images go through: resized to the input, and cropped only if they were not before."""
        return EvalTransform(
            self.image_size, resize_ratio=resize_ratio_of(images), mean=self.mean, std=self.std
        )


def open_classifier(source: str, weights: str | None) -> JudgedClassifier:
    """A stored classifier.

    Args:
        source: A folder with a classifier, a run that was fine-tuned once, or a timm name.
        weights: A file for the timm name.

    Raises:
        UserError: If there is no such thing, or a file is given for a folder.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if weights is not None:
            raise UserError(f"weights are for a timm name, but {source} is a folder that has its own")
        folder = find_classifier(folder)
        return JudgedClassifier.of(load_classifier(folder), f"the classifier in {folder}")
    network: Any = load_published(source, weights)
    config = network.pretrained_cfg
    _, height, width = config["input_size"]
    origin = f"timm's {source}, weights from {weights or 'the local cache'}"
    return JudgedClassifier(
        network, (height, width), config["mean"], config["std"], network.num_classes, None, origin
    )


def fit_classifier(
    encoder: Encoder, data: ImageSource, view: View, compute: Compute, *, seed: int, title: str = "features"
) -> JudgedClassifier:
    """A linear head on frozen features of the training part, as LinearFast fits it.

    Raises:
        UserError: If there is no labelled training part, or the encoder cannot be read that way.
    """
    try:
        part = Part.open(data, "train")
    except UserError as error:
        raise UserError(f"no training part to fit a head on ({error}); or give a classifier") from None
    names = part.require_single_label("Backgrounds", instead="images of one class each")
    features = frozen_features(encoder, part, view, compute, title=title)
    device = compute.device
    head = LinearFast(pooling=view.pooling, blocks=view.blocks).probe(
        features.values.to(device), features.require_labels().to(device), len(names), seed=seed
    )
    origin = f"a linear head fitted on {len(features.values)} images of the data's own training part"
    return JudgedClassifier.of(Classifier(encoder, head.module(), view, names), origin)
