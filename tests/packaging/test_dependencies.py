"""What is imported is declared: base dependencies, or the extra that the importing part belongs to."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "skimage": "scikit-image"}
WITH_TORCH = {"triton"}  # where there are GPUs
NEED_TORCH_ALONE = (
    "__init__",
    "__main__",
    "adapters/",
    "cli",
    "commands/recipes",
    "dpp/",
    "errors",
    "masks/",
    "rng",
    "specs",
)


def extras_of(module: str) -> tuple[str, ...]:
    """What must be installed beside torch before a module of the package can be imported."""
    if module.startswith(("dpp/backends/numba_", "dpp/backends/compiled")):
        return ("fast",)
    return () if module.startswith(NEED_TORCH_ALONE) else ("train",)


def declared(*extras: str) -> set[str]:
    """Distributions that the base and some extras bring."""
    requirements = [*PROJECT["dependencies"]]
    for extra in extras:
        requirements += PROJECT["optional-dependencies"][extra]
    return {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in requirements}


def imported(path: Path) -> Iterator[str]:
    """Distributions that a module needs to be imported at all; what functions import does not count."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for package in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
            yield DISTRIBUTIONS.get(package, package)


def undeclared(folder: Path, extras_of: Callable[[str], Iterable[str]], *, own: Collection[str]) -> set[str]:
    """What each module of a folder imports that neither its extras bring nor is our own: "file: name"."""
    modules = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    return {
        f"{module}: {name}"
        for module, path in modules.items()
        for name in imported(path)
        if name not in declared(*extras_of(module)) | WITH_TORCH | {*own}
    }


def test_the_package_declares_what_it_imports():
    assert undeclared(ROOT / "src" / "dppmask", extras_of, own=["dppmask"]) == set()


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_tests_and_benchmarks_declare_what_they_import(folder):
    own = [
        "dppmask",
        *(path.stem for part in ("tests", "benchmarks") for path in (ROOT / part).rglob("*.py")),
    ]
    every = PROJECT["optional-dependencies"]
    assert undeclared(ROOT / folder, lambda module: every, own=own) == set()


def test_an_undeclared_import_is_found(tmp_path):
    (tmp_path / "rng.py").write_text("import os\nimport torch\nimport yaml\nfrom timm.layers import Mlp\n")
    (tmp_path / "data.py").write_text("import yaml\nimport nothing_of_ours\n")
    found = undeclared(tmp_path, extras_of, own=[])
    assert found == {"rng.py: pyyaml", "rng.py: timm", "data.py: nothing_of_ours"}
