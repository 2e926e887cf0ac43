"""A method from a run's configuration: the one place where names in a config file become a model."""

from collections.abc import Callable, Mapping
from typing import Any

from dppmask import specs
from dppmask.models.base import MaskedImageModel
from dppmask.models.encoder import Encoder


def build_model(config: Mapping[str, Any]) -> MaskedImageModel:
    """The freshly initialised method of a run; draws from torch's global generator.

    Args:
        config: ``method``: a spec (``class_path``, ``init_args``), a class, or a partial call of one. For the
            encoder, each optional: ``backbone``, ``image_size``, ``patch_size``, ``position``,
            ``backbone_args``. Other keys are ignored.

    Raises:
        UserError: If the method does not exist or takes no such argument, or the encoder cannot be built.
    """
    encoder = Encoder(**encoder_arguments(config))
    method: Mapping[str, Any] | Callable[..., MaskedImageModel] = config["method"]
    return specs.build(method, encoder) if isinstance(method, Mapping) else method(encoder)


def encoder_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's arguments that a run's configuration sets; the others keep their defaults."""
    names = ("backbone", "image_size", "patch_size", "position", "backbone_args")
    return {name: config[name] for name in names if config.get(name) is not None}


def exported_part(config: Mapping[str, Any]) -> str:
    """Name of the part of a run's method that is kept after pre-training.

    Raises:
        UserError: If the method does not exist.
    """
    method = config["method"]
    factory = specs.locate(method["class_path"]) if isinstance(method, Mapping) else method
    return getattr(factory, "exported", MaskedImageModel.exported)
