"""The wheel, installed in a fresh environment outside the clone, holds everything and does the main jobs."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import dppmask
from dppmask.data.class_list import shipped_lists
from dppmask.recipes import shipped_recipes

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

DATA = "--data Scenes --data.size 32 --data.train_size 16 --data.val_size 8 --data.task single"
PRETRAIN = (
    "pretrain --config mae_scenes_tiny --config masks/dpp --image_size 32 --batch_size 8 --epochs 1 "
    f"--warmup_epochs 0 --accelerator cpu --run runs/a {DATA}"
)
EVALUATE = (
    f"evaluate --config evaluation/knn --protocol.k [3] --num_workers 0 --device cpu --run runs/a {DATA}"
)
MASKS = f"masks --mask RandomMask --mask DPPMask --run runs/a --out gallery.png {DATA}"


def call(*command: object, folder: Path) -> str:
    """Standard output of a command run in a folder outside the clone."""
    finished = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    """A new environment with the wheel; what it depends on is borrowed from this one, but not its dppmask.

    A path in a .pth file is searched last, and .pth files found there (editable installs) are not read.
    """
    folder = wheel.parent / "environment"
    venv.create(folder, with_pip=True)
    binaries = folder / "bin"
    purelib = call(
        binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder
    )
    (Path(purelib.strip()) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(binaries / "python", "-m", "pip", "install", "--no-index", "--no-deps", wheel, folder=folder)
    return binaries


def test_wheel_holds_recipes_types_and_licence_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"dppmask/recipes/{name}.yaml" for name in shipped_recipes()} <= set(names)
    assert "dppmask/py.typed" in names
    assert {f"dppmask/data/class_lists/{name}.txt" for name in shipped_lists()} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names} == {
        "dppmask",
        f"dppmask-{dppmask.__version__}.dist-info",
    }


def test_wheel_pretrains_evaluates_and_draws(installed, tmp_path):
    program = installed / "dppmask"
    where = call(installed / "python", "-c", "import dppmask; print(dppmask.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert call(program, "--version", folder=tmp_path) == f"dppmask {dppmask.__version__}\n"

    # One process for the three commands: most of their time is spent on importing what they depend on.
    run_all = (
        "import shlex, sys, dppmask.cli as c; sys.exit(any([c.main(shlex.split(a)) for a in sys.argv[1:]]))"
    )
    out = call(installed / "python", "-c", run_all, PRETRAIN, EVALUATE, MASKS, folder=tmp_path)
    run, record, picture = out.splitlines()
    assert json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2
    assert json.loads(record)["protocol"] == "KNN"
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
