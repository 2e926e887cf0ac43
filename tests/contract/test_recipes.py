"""Every shipped recipe says what it is, what it cost and how to use it; parses; and trains."""

import re
import shlex
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from PIL import Image

from dppmask import recipes
from dppmask.commands.parser import OptionParser
from dppmask.data.class_list import read_class_list
from dppmask.data.scenes import Scenes
from dppmask.data.scenes_export import export_scenes
from dppmask.evaluation.run import evaluate
from dppmask.models.mae import MAE
from dppmask.specs import build
from dppmask.training.run import pretrain

RECIPES = recipes.shipped_recipes()
MASKS = {
    name: yaml.safe_load(RECIPES[name].read_text())["mask"] for name in RECIPES if name.startswith("masks/")
}
# Masks that read what MAE does not offer without a teacher.
TAUGHT = [name for name, mask in MASKS.items() if build(mask).needs - MAE.provides]
PAPER = [name for name in RECIPES if name.startswith("paper/")]  # experiments: tests/reproduce reads them
TRAINING = [name for name in RECIPES if not name.startswith(("evaluation/", "paper/"))]
EVALUATION = [name for name in RECIPES if name.startswith("evaluation/")]
DECODING = ["evaluation/lost_objects", "evaluation/reconstructions"]  # they need a whole MAE

# The sizes of two steps on any machine; everything else is the recipe's.
SCENES = "--data Scenes --data.size 32 --data.train_size 8 --data.val_size 2"
TINY = (
    "--image_size 32 --patch_size 8 --backbone test_vit --backbone_args {} --batch_size 4 --accumulate 1 "
    "--epochs 1 --warmup_epochs 0 --accelerator cpu --devices 1 --num_workers 0 --compile false "
    "--precision 32-true"
)
TINY_METHODS = {
    "MAE": "--method.decoder_embed_dim 16 --method.decoder_depth 1 --method.decoder_num_heads 2",
    "IBOT": "--method.out_dim 16 --method.head_hidden_dim 16 --method.head_bottleneck_dim 8 "
    "--method.num_local_crops 1 --method.local_size 16 --method.warmup_teacher_temp_epochs 1",
}
# What a recipe's evaluation needs beyond few images, or less of.
SMALLER = {
    "evaluation/finetune": "--protocol.epochs 1 --protocol.warmup_epochs 0 --protocol.batch_size 20 "
    "--protocol.micro_batch 10",
    "evaluation/finetune_scenes_tiny": "--protocol.epochs 1 --protocol.warmup_epochs 0 "
    "--protocol.batch_size 20 --protocol.micro_batch 10",
    "evaluation/knn": "--data.train_size 200",
    "evaluation/lost_objects": "--data.task multi",
    "evaluation/reconstructions": "--data.task multi",
    "evaluation/linear": "--protocol.epochs 2 --protocol.warmup_epochs 1 --protocol.batch_size 20",
    "evaluation/linear_sweep": "--protocol.epochs 2 --protocol.batch_size 20",
    "evaluation/multi_label": "--data.task multi",
    "evaluation/multi_label_clevr": "--data.task multi",
    "evaluation/multi_label_coco": "--data.task multi --protocol.epochs 1 --protocol.warmup_epochs 0 "
    "--protocol.batch_size 20 --protocol.micro_batch 20",
}


def header(name: str) -> list[str]:
    lines = RECIPES[name].read_text().splitlines()
    return [line.removeprefix("#").strip() for line in lines if line.startswith("#")]


@pytest.mark.parametrize("name", RECIPES)
def test_header_says_what_command_cost_and_result(name):
    lines = header(name)
    assert re.fullmatch(rf"{name}\.yaml — .+\.", lines[0])
    for word in ("Command:", "Cost:", "Result:"):
        assert sum(line.startswith(word) for line in lines) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_names_are_unique_without_their_folder(name):
    assert recipes.find_recipe(name.rpartition("/")[2]) == RECIPES[name]


def parser_of(command: str) -> OptionParser:
    if command == "pretrain":
        return OptionParser("", pretrain, skip={"callbacks"})
    return OptionParser("", evaluate)


def write_images(folder: Path, names: Iterable[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (2 * number, 100, 200)).save(folder / name)


def export(folder: Path, format: str) -> None:
    export_scenes(Scenes(size=32, train_size=8, val_size=1), folder, format)


# Recipes of images on disk: writes as many as make two steps.
STORED = {
    "data/image_folder": lambda folder: write_images(folder, [f"{number}.png" for number in range(8)]),
    "data/imagenet100": lambda folder: write_images(
        folder, [f"train/{name}/1.png" for name in read_class_list("imagenet100")]
    ),
    "data/hub": lambda folder: write_images(folder, [f"{number}.png" for number in range(8)]),
    "data/in9": lambda folder: write_images(
        folder, [f"original/train/0{number % 2}_class/{number}.JPEG" for number in range(8)]
    ),
    "data/coco": partial(export, format="coco"),
    "data/clevr": partial(export, format="clevr"),
}
LYING_AT = {"data/hub": "--data.path {data} --data.cache_dir {cache}"}


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in PAPER])
def test_command_of_the_header_uses_the_recipe_and_parses(name):
    (command,) = (line for line in header(name) if line.startswith("Command:"))
    program, subcommand, *arguments = shlex.split(command.removeprefix("Command:"))
    configs = [value for option, value in pairwise(arguments) if option == "--config"]
    assert program == "dppmask"
    assert RECIPES[name] in [recipes.find_recipe(config) for config in configs]
    assert parser_of(subcommand).parse(arguments)["run"]


@pytest.mark.parametrize("name", [name for name in TRAINING if name.startswith("methods/")])
def test_method_recipes_name_every_number_that_matters(name):
    keys = yaml.safe_load(RECIPES[name].read_text())
    needed = {
        "method",
        "mask_ratio",
        "backbone",
        "image_size",
        "patch_size",
        "epochs",
        "batch_size",
        "base_lr",
    }
    assert needed <= keys.keys()
    assert "mask" not in keys, "the mask is layered on top"


@pytest.mark.parametrize("name", TRAINING)
def test_recipe_trains_two_steps(name, tmp_path):
    data = SCENES
    if name in STORED:
        STORED[name](tmp_path / "data")
        data = LYING_AT.get(name, "--data.root {data}").format(
            data=tmp_path / "data", cache=tmp_path / "cache"
        )
    base = "" if name.startswith("methods/") else "--config methods/mae"
    if name in TAUGHT:
        base += " --method.teacher ema"
    method = "IBOT" if name.startswith("methods/ibot") else "MAE"
    line = f"{base} --config {name} {data} {TINY} {TINY_METHODS[method]} --run {tmp_path / 'run'}".split()
    result = pretrain(**OptionParser("", pretrain, skip={"callbacks"}).parse(line))
    assert result.finished
    assert result.metrics["step"] == (25 if name == "data/imagenet100" else 2)


@pytest.fixture(scope="module")
def mae_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mae"
    options = f"--config methods/mae --mask RandomMask {SCENES} {TINY} {TINY_METHODS['MAE']} --run {folder}"
    pretrain(**OptionParser("", pretrain, skip={"callbacks"}).parse(options.split()))
    return folder


@pytest.mark.parametrize("name", EVALUATION)
def test_evaluation_recipe_scores_an_encoder(name, mae_run):
    data = "--data Scenes --data.size 32 --data.train_size 40 --data.val_size 20 --data.task single"
    subject = f"--run {mae_run}" if name in DECODING else "--run test_vit --image_size 32"
    options = f"--config {name} {subject} --num_workers 0 --device cpu"
    line = f"{options} {data} {SMALLER.get(name, '')}"
    record = evaluate(**parser_of("evaluate").parse(line.split()))
    assert record["metrics"]
    assert record["baselines"] or name == "evaluation/mask_statistics"
