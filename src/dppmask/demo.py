"""The whole job on the embedded default: pre-train with random and with DPP masks, evaluate, draw, report.

``python -m dppmask.demo --scale full|smoke --out FOLDER`` runs ``dppmask`` commands, each shown as one would
type it, and reads what they leave behind. Called again on the same folder, it goes on where it stopped.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dppmask.data.scenes import Scenes
from dppmask.errors import UserError
from dppmask.evaluation.strategies import label_of
from dppmask.figures.curves import draw_curves, load_curves
from dppmask.figures.demo_report import DemoResults, demo_report
from dppmask.figures.mask_gallery import draw_gallery, make_gallery, spread_images
from dppmask.figures.mask_statistics import draw_statistics, sweeps
from dppmask.figures.reconstruction import compare, draw_comparison
from dppmask.figures.style import save_figure
from dppmask.figures.table import Cell, Column, Measured, Table
from dppmask.files import write_json
from dppmask.masks import DPPMask, MaskStrategy, RandomMask
from dppmask.models.checkpoint import load_model
from dppmask.models.mae import MAE
from dppmask.training.environment import describe_environment
from dppmask.typed import as_typed, options_of, run_command

RECIPE = "mae_scenes_tiny"
MASK_RATIO = 0.75
PURGE_RATIOS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
STRATEGIES = {"random": RandomMask(), "dpp": DPPMask(purge_ratio=0.3)}
NAMES = {"random": "MAE, random masks", "dpp": "MAE, DPP masks (τ = 0.3)"}
PICTURED = 6


@dataclass(frozen=True)
class Scale:
    """How much of everything; fixed before masks were first compared.

    Attributes:
        scenes: Images to pre-train on.
        epochs: Passes over them.
        labelled: Images that classifiers are fitted to.
        held_out: Images that are scored.
    """

    scenes: int
    epochs: int
    labelled: int
    held_out: int

    def data(self, task: str, train_size: int, cache: Path) -> list[str]:
        """The options that open the data."""
        sizes = {"data.train_size": train_size, "data.val_size": self.held_out}
        return options_of({"data": "Scenes", "data.task": task} | sizes | {"data.cache_dir": str(cache)})


SCALES = {
    "full": Scale(scenes=2048, epochs=20, labelled=2048, held_out=1024),
    "smoke": Scale(scenes=256, epochs=2, labelled=128, held_out=64),
}


class Demo:
    """One folder of results.

    Args:
        scale: How much.
        out: Where everything goes.
    """

    def __init__(self, scale: Scale, out: Path) -> None:
        self.scale = scale
        self.out = out
        self.started = time.monotonic()
        self.single = scale.data("single", scale.labelled, out / "cache")
        self.multi = scale.data("multi", scale.scenes, out / "cache")
        self.commands: dict[str, list[str]] = {"curves": [], "table": [], "sweeps": []}
        self.records: dict[str, dict[str, dict[str, Any]]] = {}

    def run(self) -> Path:
        """Everything, in order; returns the path of the report."""
        for name, strategy in STRATEGIES.items():
            self.pretrain(name, type(strategy).__name__)
        for name in STRATEGIES:
            self.evaluate(name)
        statistics = self.sweep()
        return self.draw(statistics)

    def pretrain(self, name: str, mask: str) -> None:
        """One run; goes on with one that was interrupted."""
        purge = ["--mask.purge_ratio", "0.3"] if mask == "DPPMask" else []
        options = [*self.multi, "--mask", mask, *purge, "--epochs", str(self.scale.epochs)]
        resume = ["--resume"] if self.folder(name).exists() else []
        self.command(
            "curves", "pretrain", "--config", RECIPE, *options, "--run", str(self.folder(name)), *resume
        )

    def evaluate(self, name: str) -> None:
        """Every protocol on one run. Baselines need no run of their own: they stand beside the first."""
        baselines = "" if name == "random" else "[chance]"
        extra = ["--protocol.baselines", baselines] if baselines else []
        pooled = ["--protocol.pooling", "mean"]
        self.records[name] = {
            "knn": self.score(name, "KNN", [*self.single, *pooled, *extra]),
            "linear": self.score(name, "LinearFast", [*self.single, *pooled, *extra]),
            "labels": self.score(name, "LinearFast", [*self.multi, *pooled, *extra]),
        }

    def sweep(self) -> dict[str, Any]:
        """Mask statistics over purge ratios, on the tokens of the run with DPP masks."""
        masks = [{"class_path": "DPPMask", "init_args": {"purge_ratio": tau}} for tau in PURGE_RATIOS]
        options = [*self.multi, "--protocol.masks", json.dumps(masks)]
        return self.score("dpp", "MaskStatistics", options, section="sweeps")

    def score(
        self, name: str, protocol: str, options: list[str], *, section: str = "table"
    ) -> dict[str, Any]:
        """One evaluation; its record."""
        line = self.command(
            section, "evaluate", "--run", str(self.folder(name)), "--protocol", protocol, *options
        )
        return json.loads(line)

    def draw(self, statistics: dict[str, Any]) -> Path:
        """Pictures, the table on stdout, and the report."""
        models = {name: self.model(name) for name in STRATEGIES}
        encoder = models["dpp"].encoder
        part = Scenes(task="multi", train_size=self.scale.scenes, val_size=self.scale.held_out).split("val")
        images = spread_images(part, PICTURED, encoder)
        shown = [RandomMask(), DPPMask(0.7), DPPMask(0.3), DPPMask(0.0)]
        results = DemoResults(
            headline=self.headline(statistics),
            setting=self.setting(),
            table=self.table(statistics),
            gallery=make_gallery(images, shown, grid=encoder.grid, mask_ratio=MASK_RATIO, encoder=encoder),
            comparison=compare(
                images[:4],
                *((models[name], strategy) for name, strategy in STRATEGIES.items()),
                mask_ratio=MASK_RATIO,
            ),
            sweeps=sweeps(statistics["tables"]),
            curves=load_curves({NAMES[name]: self.folder(name) for name in STRATEGIES}),
            environment=describe_environment() | {"seconds": round(time.monotonic() - self.started)},
            commands=self.commands,
        )
        write_json(self.out / "environment.json", results.environment)
        save_figure(draw_gallery(results.gallery), self.out / "gallery.png")
        save_figure(draw_comparison(results.comparison), self.out / "reconstructions.png")
        save_figure(draw_statistics(results.sweeps), self.out / "mask_statistics.png")
        save_figure(draw_curves(results.curves), self.out / "curves.png")
        (self.out / "results.md").write_text(results.table.to_markdown())
        print(results.table.to_text())
        return demo_report(results, self.out / "report.html")

    def table(self, statistics: dict[str, Any]) -> Table:
        """Runs and baselines side by side."""
        lost = {name: objects_lost(statistics, strategy) for name, strategy in STRATEGIES.items()}
        metrics = {"knn": "knn_top1_k20", "linear": "top1", "labels": "mAP"}
        rows: list[dict[str, Cell]] = []
        for name in STRATEGIES:
            scores = {
                column: measured(self.records[name][column], metric) for column, metric in metrics.items()
            }
            rows.append({"name": NAMES[name], "lost": lost[name], **scores})
        known = {column: self.records["random"][column]["baselines"] for column in metrics}
        baselines: list[dict[str, Cell]] = [
            {"name": title} | {column: known[column].get(key, {}).get(metrics[column]) for column in metrics}
            for key, title in (
                ("random_encoder", "the same encoder, untrained"),
                ("raw_pixels", "raw pixels, k-NN"),
                ("chance", "chance"),
            )
        ]
        return Table(
            columns=[
                Column("name", ""),
                Column("lost", "objects lost, %", better="lower", scale=100),
                Column("knn", "k-NN top-1, %", scale=100),
                Column("linear", "linear top-1, %", scale=100),
                Column("labels", "24 labels, mAP %", scale=100),
            ],
            rows=rows,
            baselines=baselines,
            title="MAE on Scenes, the same budget for both",
            note=(
                "±: one standard error over held-out images. One seed each, so the differences between the "
                "trainings are not evidence; what masks lose is measured on the same images and noise."
            ),
        )

    def headline(self, statistics: dict[str, Any]) -> dict[str, str]:
        """The three numbers one remembers."""
        show = Column("", "", scale=100).show

        shown = {
            "objects lost by random masks": RandomMask(),
            "objects lost by DPP masks, τ = 0.3": DPPMask(0.3),
            "objects lost by DPP masks, τ = 0": DPPMask(0.0),
        }
        return {title: f"{show(objects_lost(statistics, mask))} %" for title, mask in shown.items()}

    def setting(self) -> str:
        """What was trained on what, in a paragraph."""
        scale = self.scale
        small = (
            " This is the smoke scale: it shows that everything runs, and no more."
            if scale.epochs < 10
            else ""
        )
        return (
            f"A small Vision Transformer (64 px, 8 × 8 patches, {MASK_RATIO:.0%} hidden) was pre-trained for "
            f"{scale.epochs} epochs on {scale.scenes} rendered scenes, once with each kind of mask. Its "
            f"frozen, averaged patch tokens were then scored on {scale.held_out} held-out images: nine "
            f"classes of single objects ({scale.labelled} labelled images) and 24 labels of crowded "
            f"scenes.{small}"
        )

    def folder(self, name: str) -> Path:
        """The run folder of one training."""
        return self.out / "runs" / name

    def model(self, name: str) -> MAE:
        """One trained model."""
        model = load_model(self.folder(name))
        if not isinstance(model, MAE):
            raise UserError(f"{self.folder(name)} holds a {type(model).__name__}, not the MAE of this demo")
        return model.eval()

    def command(self, section: str, *arguments: str) -> str:
        """Run a ``dppmask`` command, and remember it under a section of the report."""
        self.commands[section].append(as_typed(*arguments))
        return run_command(*arguments)


def measured(record: dict[str, Any], metric: str) -> Measured:
    """One number of a record with its standard error."""
    return Measured(record["metrics"][metric], record["standard_errors"].get(metric))


def objects_lost(record: dict[str, Any], strategy: MaskStrategy) -> Measured:
    """The share of objects of which a strategy shows less than 5 %."""
    return measured(record, f"{label_of(strategy)}/objects_lost")


def main() -> None:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(prog="python -m dppmask.demo", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="how much of everything")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything that is made")
    options = parser.parse_args()
    out: Path = options.out / options.scale
    out.mkdir(parents=True, exist_ok=True)
    demo = Demo(SCALES[options.scale], out)
    report = demo.run()
    minutes, seconds = divmod(round(time.monotonic() - demo.started), 60)
    print(f"Pictures: {out}/gallery.png, reconstructions.png, mask_statistics.png, curves.png")
    print(f"Report:   {report.resolve()}")
    print(f"Done in {minutes} min {seconds} s.")


if __name__ == "__main__":
    main()
