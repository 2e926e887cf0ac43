"""Where work is done: folders, processes, devices, data. Nothing of it is part of a key."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dppmask.errors import UserError
from dppmask.reproduce.launch import VISIBLE
from dppmask.reproduce.request import Options
from dppmask.reproduce.units import Evaluation, Unit

SAVE_LAST_EVERY = 50  # optimiser steps that a kill may cost
RUN = "${run}"  # in an argument of a protocol: the run folder
_DATA_SET = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Machine:
    """One machine's way of working.

    Attributes:
        work: Folder of the runs.
        jobs: Processes at a time.
        gpus: Their numbers; none = work on the CPU.
        data_roots: Name of a data set → its folder.
        launch: What stands before ``python -m dppmask pretrain``: srun or torchrun with its options; empty =
            train in the worker itself.
        num_workers: Loader processes of each unit.
    """

    work: Path
    jobs: int = 1
    gpus: tuple[int, ...] = ()
    data_roots: Mapping[str, str] = field(default_factory=dict)
    launch: tuple[str, ...] = ()
    num_workers: int = 0

    @classmethod
    def here(cls, work: Path, *, jobs: int | None, device: str, **more: Any) -> "Machine":
        """One process per GPU, or per CPU core where there is none; one at all where runs are launched.

        Raises:
            UserError: If a GPU is asked for and there is none, or ``jobs`` is below 1.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device must be auto, cpu or cuda, got {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("device is cuda, but there is no GPU; use cpu")
        if jobs is not None and jobs < 1:
            raise UserError(f"jobs must be at least 1, got {jobs}")
        gpus = () if device == "cpu" else tuple(range(torch.cuda.device_count()))
        usual = 1 if more.get("launch") else len(gpus) or os.cpu_count() or 1
        return cls(work, jobs or usual, gpus, **more)

    @property
    def cache(self) -> Path:
        """Folder of rendered images, shared by all runs."""
        return self.work / "cache"

    @property
    def lock(self) -> Path:
        """Held while somebody works here; not the folder itself, which may hold the cells too."""
        return self.work / "lock"

    def folder(self, unit: Unit) -> Path | None:
        """The run folder of a unit; None if nothing is trained."""
        return None if unit.request is None else self.work / "runs" / unit.key

    def environment(self, worker: int) -> dict[str, str]:
        """Environment variables of a worker: its share of the CPU, or its GPU; a single one sees all."""
        environment = dict(os.environ)
        if self.gpus and self.jobs > 1:
            environment[VISIBLE] = str(self.gpus[worker % len(self.gpus)])
        elif not self.gpus:
            environment[VISIBLE] = ""
            threads = max(1, (os.cpu_count() or 1) // self.jobs)
            environment["OMP_NUM_THREADS"] = str(threads)
        return environment

    def task(self, unit: Unit, missing: list[Evaluation]) -> dict[str, Any]:
        """What a worker needs to know, as plain data. What is timed gets all cores: it runs alone.

        Raises:
            UserError: If a data set's folder is not known, or the run wants more devices than a worker has.
        """
        wanted = unit.options.get("devices", 1) if unit.request else 1
        if self.jobs > 1 and wanted > 1 and not self.launch:
            raise UserError(
                f"{unit.title} takes {wanted} devices, and each of {self.jobs} jobs has one; use --jobs 1"
            )
        folder = self.folder(unit)
        return {
            "folder": folder and str(folder),
            "pretrain": self._pretraining(unit.options) if folder else None,
            "evaluations": [
                {"key": e.key, "options": self._evaluation(e.options, folder) if e.request else None}
                for e in missing
            ],
            "seed": unit.seed,
            "device": "cuda" if self.gpus else "cpu",
            "launch": list(self.launch),
            "visible": os.environ.get(VISIBLE) if self.gpus else "",
            "threads": None if self.gpus or not unit.timed else os.cpu_count(),
        }

    def _pretraining(self, options: Options) -> Options:
        local = {
            "accelerator": "gpu" if self.gpus else "cpu",
            "num_workers": self.num_workers,
            "save_every": 0,
            "save_last_every": SAVE_LAST_EVERY,
            "data": self._data(options["data"]),
        }
        return {**options, **local}

    def _evaluation(self, options: Options, folder: Path | None) -> Options:
        arguments = options["protocol"].get("init_args") or {}
        own = {name: _in_run(value, folder) for name, value in arguments.items()}
        protocol = {**options["protocol"], "init_args": own}
        data = self._data(options["data"])
        return {**options, "num_workers": self.num_workers, "protocol": protocol, "data": data}

    def _data(self, spec: Any) -> Any:
        """A data source with the folders of this machine."""
        arguments = {name: self._located(value) for name, value in (spec.get("init_args") or {}).items()}
        if spec["class_path"] == "dppmask.data.scenes.Scenes":
            arguments["cache_dir"] = str(self.cache)
        return {**spec, "init_args": arguments}

    def _located(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        for name in _DATA_SET.findall(value):
            if name not in self.data_roots:
                raise UserError(
                    f'the folder of data set {name} is not known; give --data_roots \'{{"{name}": "PATH"}}\''
                )
        return _DATA_SET.sub(lambda match: self.data_roots[match[1]], value)


def _in_run(value: Any, folder: Path | None) -> Any:
    """The argument of a protocol; "${run}" stands for the run folder."""
    return value.replace(RUN, str(folder)) if isinstance(value, str) else value
