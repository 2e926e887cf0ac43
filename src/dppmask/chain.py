"""Every evaluation on the embedded default: pre-train once, score by all protocols, compare with baselines.

``python -m dppmask.chain --scale full|smoke --out FOLDER`` runs ``dppmask`` commands, each shown as one would
type it. Called again on the same folder it goes on: the pre-training is resumed or left alone if finished,
evaluations on record are read, and features and fine-tunings that are there are not made again.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dppmask.figures.table import CLEARLY, Cell, Column, Measured, Table
from dppmask.files import append_line, write_json
from dppmask.training.environment import describe_environment
from dppmask.typed import as_typed, options_of, record_of, run_command

RECIPE, MASK = "mae_scenes_tiny", "masks/dpp"
ESTIMATED = (
    "raw_pixels",
    "random_encoder",
)  # baselines that are scored on images, and as unsure as the result
RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Scale:
    """How much of everything; fixed before anything was scored.

    Attributes:
        scenes: Images to pre-train on.
        epochs: Passes over them.
        labelled: Images that classifiers are fitted to.
        held_out: Images that are scored.
        probing: Epochs of linear probes that train in epochs.
        tuning: Epochs of fine-tuning.
    """

    scenes: int
    epochs: int
    labelled: int
    held_out: int
    probing: int
    tuning: int


SCALES = {
    "full": Scale(scenes=2048, epochs=12, labelled=2048, held_out=1024, probing=5, tuning=3),
    "smoke": Scale(scenes=128, epochs=1, labelled=128, held_out=64, probing=2, tuning=1),
}


@dataclass(frozen=True)
class Step:
    """One evaluation.

    Attributes:
        title: Its name in the table.
        task: Of Scenes: "single" or "multi".
        options: Of ``dppmask evaluate``, besides the run and the data.
        metrics: Name in the table → name in the record; empty = no number with a baseline.
    """

    title: str
    task: str
    options: Mapping[str, Any]
    metrics: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """The options as one types them."""
        return options_of(self.options)


def steps(scale: Scale) -> list[Step]:
    """All protocols, from the cheapest to the dearest."""
    mean = {"protocol.pooling": "mean"}
    beside = ["chance", "raw_pixels"]  # an untrained encoder stands beside the fitted probe
    probing: dict[str, Any] = {"protocol.epochs": scale.probing, "protocol.batch_size": 64}
    probing["protocol.baselines"] = beside
    tuning = {"protocol.epochs": scale.tuning, "protocol.warmup_epochs": 0.5}
    few = {"protocol.num_images": 256}
    top1 = {"top-1": "top1"}
    clusters = {"NMI": "kmeans_nmi", "ACC": "kmeans_acc", "ARI": "kmeans_ari"}
    labels = {"mAP": "mAP", "OF1": "of1_0.5", "CF1": "cf1_mean_0.5", "accuracy": "accuracy_0.5"}
    variants = {"original": "original", "mixed_same": "mixed_same", "mixed_rand": "mixed_rand"}
    lars = {"protocol.warmup_epochs": 1, "protocol.base_lr": 4}  # the step of LARS is short: see Linear
    colours = {"protocol.rand_augment": None, "protocol.random_erasing": 0.0}  # they are what labels say
    updates = {"protocol.batch_size": 64, "protocol.micro_batch": 64, "protocol.base_lr": 2e-3}
    several: dict[str, Any] = {"protocol": "MultiLabelFinetune", "protocol.loss": "bce"} | updates | colours
    return [
        Step("k-NN", "single", {"protocol": "KNN"} | mean, {"top-1": "knn_top1_k20"}),
        Step("k-NN of 24 labels", "multi", {"protocol": "KNN"} | mean, {"mAP": "knn_mAP_k20"}),
        Step("linear, fitted", "single", {"protocol": "LinearFast"} | mean, top1),
        Step("linear, MAE's", "single", {"protocol": "Linear"} | mean | probing | lars, top1),
        Step("linear, iBOT's", "single", {"protocol": "LinearSweep"} | mean | probing, top1),
        Step("k-means", "single", {"protocol": "Clustering"} | mean, clusters),
        Step("24 labels, linear", "multi", {"config": "evaluation/multi_label"}, labels),
        Step("Backgrounds Challenge", "single", {"protocol": "Backgrounds"} | mean, variants),
        Step("mask statistics", "multi", {"protocol": "MaskStatistics", "protocol.num_images": 256}),
        Step("alignment", "multi", {"config": "evaluation/alignment", "protocol.num_images": 64}),
        Step("reconstructions", "multi", {"config": "evaluation/reconstructions"} | few),
        Step("lost objects", "multi", {"config": "evaluation/lost_objects"} | few),
        Step("fine-tuning", "single", {"config": "finetune_scenes_tiny"} | tuning, top1),
        Step("24 labels, fine-tuning", "multi", several | tuning, {"mAP": "mAP"}),
    ]


class Chain:
    """One folder of results.

    Args:
        scale: How much.
        out: Where everything goes.
    """

    def __init__(self, scale: Scale, out: Path) -> None:
        self.scale = scale
        self.out = out
        self.run_folder = out / "run"
        self.known = dict(self._recorded())

    def run(self) -> Table:
        """Pre-train, evaluate, and put the numbers side by side."""
        self.pretrain()
        rows: list[dict[str, Cell]] = []
        for step in steps(self.scale):
            record = self.record(step)
            rows += [row(step, title, metric, record) for title, metric in step.metrics.items()]
        return table(rows)

    def pretrain(self) -> None:
        """One MAE with DPP masks; goes on with one that was interrupted."""
        resume = ["--resume"] if self.run_folder.exists() else []
        length = ["--epochs", str(self.scale.epochs), "--run", str(self.run_folder), *resume]
        data = self.data("multi", self.scale.scenes)
        run_command("pretrain", "--config", RECIPE, "--config", MASK, *data, *length)

    def record(self, step: Step) -> dict[str, Any]:
        """What an evaluation found, now or before."""
        data = self.data(step.task, self.scale.labelled)
        arguments = ["evaluate", *step.arguments(), "--run", str(self.run_folder), *data]
        command = as_typed(*arguments)
        if command not in self.known:
            self.known[command] = record_of(*arguments)
            line = {"typed": command, "record": self.known[command]}
            append_line(self.out / RECORDS, json.dumps(line))
        return self.known[command]

    def data(self, task: str, labelled: int) -> list[str]:
        """The options that open the data."""
        sizes = {"data.train_size": labelled, "data.val_size": self.scale.held_out}
        cache = {"data.cache_dir": str(self.out / "cache")}
        return options_of({"data": "Scenes", "data.size": 64, "data.task": task} | sizes | cache)

    def _recorded(self) -> Iterator[tuple[str, dict[str, Any]]]:
        path = self.out / RECORDS
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            yield entry["typed"], entry["record"]


def row(step: Step, title: str, metric: str, record: Mapping[str, Any]) -> dict[str, Cell]:
    """One metric beside its baselines, and which of them it does not clear."""
    found = Measured(record["metrics"][metric], record["standard_errors"].get(metric))
    beside = {name: known[metric] for name, known in record["baselines"].items() if metric in known}
    beside.pop("ceiling", None)  # a bound from above
    constant = [value for name, value in beside.items() if name not in ESTIMATED]
    missed = [name for name, value in beside.items() if not clears(found, value, estimated=name in ESTIMATED)]
    return {
        "name": f"{step.title}: {title}",
        "found": found,
        "constant": max(constant, default=None),
        **{name: beside.get(name) for name in ESTIMATED},
        "clears": f"not {', '.join(name.replace('_', ' ') for name in missed)}" if missed else "all",
    }


def clears(found: Measured, baseline: float, *, estimated: bool) -> bool:
    """Whether a number lies above a baseline by more than three standard errors of the difference.

    Args:
        found: The number.
        baseline: What it must clear.
        estimated: Whether the baseline was scored on the same images, and is taken to be as unsure.
    """
    error = (found.standard_error or 0.0) * (math.sqrt(2.0) if estimated else 1.0)
    return found.mean - baseline > CLEARLY * error


def table(rows: list[dict[str, Cell]]) -> Table:
    """The numbers of all evaluations."""
    return Table(
        columns=[
            Column("name", ""),
            Column("found", "result, %", scale=100),
            Column("constant", "no image seen", scale=100),
            Column("raw_pixels", "raw pixels", scale=100),
            Column("random_encoder", "untrained", scale=100),
            Column("clears", f"clears by {CLEARLY:g} s.e."),
        ],
        rows=rows,
        title="Every evaluation, one small MAE with DPP masks on Scenes",
        note=(
            "±: one standard error over held-out images. No image seen: the best answer that is the same for "
            "all images, or for all with the same background. Raw pixels: k-NN, or k-means for clusters."
        ),
    )


def main() -> None:
    """Run the chain from the command line."""
    parser = argparse.ArgumentParser(prog="python -m dppmask.chain", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="how much of everything")
    parser.add_argument("--out", type=Path, default=Path("chain"), help="folder for everything that is made")
    options = parser.parse_args()
    started = time.monotonic()
    out: Path = options.out / options.scale
    out.mkdir(parents=True, exist_ok=True)
    results = Chain(SCALES[options.scale], out).run()
    seconds = round(time.monotonic() - started)
    (out / "results.md").write_text(results.to_markdown())
    write_json(out / "environment.json", describe_environment() | {"seconds": seconds})
    print(results.to_text())
    print(f"Results: {out / 'results.md'}; records with all numbers: {out / RECORDS}")
    print(f"Done in {seconds // 60} min {seconds % 60} s.")


if __name__ == "__main__":
    main()
