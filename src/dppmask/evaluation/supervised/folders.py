"""Where a protocol that fine-tunes works, so that the same evaluation finds its own work again."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from dppmask import specs
from dppmask.data.base import ImageSource
from dppmask.errors import UserError
from dppmask.evaluation import ranks
from dppmask.evaluation.base import Subject
from dppmask.evaluation.features import weights_hash

NOT_KEPT = "trained in a temporary folder: nothing is kept, nothing can be resumed; give out to keep it"


class Tuner(Protocol):
    """A protocol with an option that says where to work.

    Attributes:
        out: The folder; None = one in the run.
    """

    out: str | None

    @property
    def name(self) -> str: ...


def identity_of(protocol: Tuner) -> dict[str, Any]:
    """The settings but for where the work is kept and what is trained beside."""
    described = specs.describe(protocol)
    for name in ("out", "baselines"):
        del described["init_args"][name]
    return described


def kept_notes(protocol: Tuner, subject: Subject) -> list[str]:
    """Says so if the work is not kept."""
    return [] if protocol.out is not None or subject.run is not None else [NOT_KEPT]


@contextlib.contextmanager
def working_folder(protocol: Tuner, subject: Subject, data: ImageSource, *, seed: int) -> Iterator[Path]:
    """Where to work: ``out``, a folder in the run named after all that matters, or a temporary one.

    Raises:
        UserError: If several ranks would need to share a temporary one.
    """
    if protocol.out is not None:
        yield Path(protocol.out)
    elif subject.run is not None:
        encoder = subject.require_encoder(protocol.name)
        everything = {
            "protocol": identity_of(protocol),
            "data": specs.describe(data),
            "seed": seed,
            "weights": weights_hash(encoder),
            "image_size": list(encoder.image_size),
            "precision": subject.compute.precision,
        }
        text = json.dumps(everything, sort_keys=True).encode()
        yield subject.run / "finetune" / hashlib.blake2b(text, digest_size=8).hexdigest()
    elif ranks.num_ranks() > 1:
        raise UserError(
            f"{protocol.name} on several devices needs a folder they share, and this encoder has no run; "
            "give protocol.out"
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "finetune"
