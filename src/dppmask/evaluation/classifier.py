"""An encoder with a head on top that names classes, as one network and as a folder of files."""

import json
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import Tensor, nn

from dppmask.errors import UserError
from dppmask.evaluation.features import View
from dppmask.files import replace_file, write_json
from dppmask.models.checkpoint import save_encoder
from dppmask.models.encoder import Encoder
from dppmask.models.weights import load_encoder, load_into, read_tensors
from dppmask.rng import seeded

CONFIG, HEAD, ENCODER = "classifier.json", "head.safetensors", "encoder"

_FIRST_WEIGHTS = 21  # keeps the stream of a head's first weights apart from others of the same seed


class Classifier(nn.Module):
    """Images to logits: encoder, one vector per image, head.

    Args:
        encoder: Taken as it is.
        head: From vectors ``[B, D]`` to logits ``[B, C]``.
        view: How tokens become one vector.
        class_names: C names, in the order of the logits.

    Raises:
        UserError: If the encoder cannot be read that way.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, view: View, class_names: list[str]) -> None:
        super().__init__()
        view.check(encoder)
        self.encoder = encoder
        self.head = head
        self.view = view
        self.class_names = list(class_names)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]``, normalised as the encoder wants them, to logits ``[B, C]``."""
        return self.head(self.view.pool(self.encoder.encode(images, blocks=self.view.blocks)))


def new_classifier(
    encoder: Encoder,
    class_names: list[str],
    *,
    pooling: Literal["mean", "cls"],
    drop_path: float,
    seed: int,
) -> Classifier:
    """A copy of an encoder, made ready for fine-tuning, with a fresh head.

    Positions become trainable. Behind "mean" stands a fresh layer norm in place of the encoder's final one.

    Args:
        encoder: Left as it is.
        class_names: What the head tells apart.
        pooling: "mean" of the patch tokens, or "cls".
        drop_path: Probability that the last block is left out; it falls to 0 at the first.
        seed: Of the head's weights.

    Raises:
        UserError: If the encoder cannot be read that way.
    """
    arguments = encoder.arguments() | {"position": "learned"}
    changes = {"drop_path_rate": drop_path, **({"final_norm": False} if pooling == "mean" else {})}
    arguments["backbone_args"] = arguments["backbone_args"] | changes
    with seeded(seed, _FIRST_WEIGHTS):
        copy = Encoder(**arguments)
        linear = nn.Linear(encoder.embed_dim, len(class_names))
        nn.init.trunc_normal_(linear.weight, std=2e-5)
        nn.init.zeros_(linear.bias)
    state = encoder.state_dict()
    copy.load_state_dict({name: state[name] for name in copy.state_dict()})
    copy.mean, copy.std = encoder.mean, encoder.std
    norm = nn.LayerNorm(encoder.embed_dim, eps=1e-6)
    head = nn.Sequential(norm, linear) if pooling == "mean" else linear
    return Classifier(copy, head, View(pooling), class_names)


def save_classifier(classifier: Classifier, folder: str | Path) -> None:
    """Write ``encoder/``, which timm alone loads, ``head.safetensors`` and ``classifier.json``.

    The head must be a linear layer, alone or behind a layer normalisation or a batch normalisation without
    affine part.

    Raises:
        UserError: If the head is of another kind, or the disk is full.
    """
    folder = Path(folder)
    config = {
        "head": _describe_head(classifier.head),
        "view": {"pooling": classifier.view.pooling, "blocks": classifier.view.blocks},
        "class_names": classifier.class_names,
    }
    state = {name: value.detach().cpu().contiguous() for name, value in classifier.head.state_dict().items()}
    save_encoder(classifier.encoder, folder / ENCODER)
    with replace_file(folder / HEAD) as handle:
        handle.write(safetensors.torch.save(state))
    write_json(folder / CONFIG, config)  # last: who finds it finds the weights too


def find_classifier(folder: str | Path) -> Path:
    """The folder of the one classifier in a folder: itself, or where fine-tuning wrote it in a run.

    Raises:
        UserError: If there is none, or more than one.
    """
    folder = Path(folder)
    places = [
        folder,
        folder / "classifier",
        *folder.glob("*/classifier"),
        *folder.glob("finetune/*/classifier"),
    ]
    found = sorted({place for place in places if (place / CONFIG).is_file()})
    if not found:
        raise UserError(f"{folder} holds no {CONFIG}; fine-tune first: dppmask evaluate --protocol Finetune")
    if len(found) > 1:
        named = ", ".join(map(str, found))
        raise UserError(f"{folder} holds {len(found)} classifiers; name one of {named}")
    return found[0]


def load_classifier(folder: str | Path) -> Classifier:
    """What :func:`save_classifier` wrote, on the CPU and in evaluation mode.

    Raises:
        UserError: If a file is missing or unreadable, or they do not belong together.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    head = _build_head(config["head"])
    load_into(head, read_tensors(folder / HEAD), str(folder / HEAD))
    encoder = load_encoder(folder / ENCODER)
    return Classifier(encoder, head, View(**config["view"]), config["class_names"]).eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no classifier: there is no {path.name}") from None
    except ValueError as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict) or not {"head", "view", "class_names"} <= config.keys():
        raise UserError(f"{path} was not written by save_classifier: it must hold head, view and class_names")
    return config


def _describe_head(head: nn.Module) -> dict[str, Any]:
    """Plain data that :func:`_build_head` makes a head of the same kind and size from."""
    norm, linear = head if isinstance(head, nn.Sequential) and len(head) == 2 else (None, head)
    if type(linear) is nn.Linear and linear.bias is not None:
        size = {"width": linear.in_features, "num_classes": linear.out_features}
        if norm is None:
            return {"norm": None, **size}
        if type(norm) is nn.LayerNorm and norm.elementwise_affine:
            return {"norm": "layer", "eps": norm.eps, **size}
        if type(norm) is nn.BatchNorm1d and not norm.affine:
            return {"norm": "batch", "eps": norm.eps, **size}
    raise UserError(
        "the head of a classifier must be a linear layer, alone or behind LayerNorm or BatchNorm1d without "
        f"affine part, got {' '.join(repr(head).split())}"
    )


def _build_head(config: dict[str, Any]) -> nn.Module:
    width = config["width"]
    linear = nn.Linear(width, config["num_classes"])
    if config["norm"] is None:
        return linear
    if config["norm"] == "layer":
        return nn.Sequential(nn.LayerNorm(width, eps=config["eps"]), linear)
    if config["norm"] == "batch":
        return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=config["eps"]), linear)
    raise UserError(f"norm of a head must be layer, batch or null, got {config['norm']!r}")
