"""A process that does units one after another: ``python -m dppmask.reproduce.worker``; imports are paid once.

Tasks arrive on standard input and events leave on standard output, a line of JSON each. It ends with its
parent: an orphan must not go on writing into a run folder that the next runner takes up.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dppmask import specs
from dppmask.errors import UserError
from dppmask.evaluation.run import evaluate
from dppmask.files import write_yaml
from dppmask.reproduce.launch import VISIBLE, launch, stop_launched
from dppmask.training.callbacks import read_metrics
from dppmask.training.environment import describe_environment
from dppmask.training.run import METRICS, pretrain

Send = Callable[[dict[str, Any]], None]
Task = Mapping[str, Any]

ORPHANED, STOPPED = 3, 4  # exit codes
SLOWEST = 0.05  # images per second; the file rounds what is slower to 0


def main() -> None:
    """Do what comes in until nothing more does."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not stand among the events

    def send(event: dict[str, Any]) -> None:
        events.write(json.dumps(event, allow_nan=False) + "\n")

    for task in iter(_incoming().get, None):
        with contextlib.redirect_stdout(sys.stderr):
            do(task, send)


def do(task: Task, send: Send) -> None:
    """Train if need be, evaluate, and send a cell for every key, or a failure; one failure stops no other.

    Args:
        task: From :meth:`dppmask.reproduce.machine.Machine.task`.
        send: Takes events: {"event": "cell" | "failed" | "done", …}.

    Raises:
        SystemExit: If a signal stopped the training, which has saved.
    """
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    try:
        trained = _train(task)
    except Exception as error:
        for evaluation in task["evaluations"]:
            send(_failure(evaluation, error))
        send({"event": "done"})
        return
    if not trained:
        raise SystemExit(STOPPED)
    for evaluation in task["evaluations"]:
        try:
            send(_measured(task, evaluation))
        except Exception as error:
            send(_failure(evaluation, error))
    send({"event": "done"})


def training_metrics(lines: Sequence[Mapping[str, Any]], *, images_per_step: int) -> dict[str, float]:
    """What a training says about itself: the loss of its last epoch, its speed, and how long it took.

    Time is counted from the speed of each line, so that it is right however often the run was interrupted.
    """
    steps = [
        line["step"] - before for line, before in zip(lines, [0, *(x["step"] for x in lines)], strict=False)
    ]
    last = [
        (n, line["loss"]) for n, line in zip(steps, lines, strict=True) if line["epoch"] == lines[-1]["epoch"]
    ]
    seconds = sum(
        n * images_per_step / max(line["images_per_second"], SLOWEST)
        for n, line in zip(steps, lines, strict=True)
    )
    images = sum(steps) * images_per_step
    return {
        "loss": sum(n * loss for n, loss in last) / sum(n for n, _ in last),
        "steps": sum(steps),
        "images": images,
        "seconds": seconds,
        "images_per_second": images / seconds,
    }


def _incoming() -> "queue.Queue[Task | None]":
    """Tasks as they arrive. The end of the input ends the process, whatever it is doing."""
    tasks: queue.Queue[Task | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            tasks.put(json.loads(line))
        stop_launched()
        os._exit(ORPHANED)

    threading.Thread(target=read, daemon=True).start()
    return tasks


def _train(task: Task) -> bool:
    """Train, or go on with what is there; whether the end was reached.

    What several devices train is a command of its own, which starts a process for each.
    """
    if task["pretrain"] is None:
        return True
    if not task["launch"] and _devices(task["pretrain"]) == 1:
        return pretrain(**task["pretrain"], run=task["folder"], resume=True).finished
    folder = Path(task["folder"])
    config = folder.with_suffix(".yaml")
    write_yaml(config, task["pretrain"])
    command = [*task["launch"], sys.executable, "-m", "dppmask", "pretrain", "--config", str(config)]
    environment = {name: value for name, value in os.environ.items() if name != VISIBLE}
    if task["visible"] is not None:  # as it was before this worker got one GPU of its own
        environment[VISIBLE] = task["visible"]
    return launch([*command, "--run", str(folder), "--resume"], environment)


def _devices(options: Mapping[str, Any]) -> int:
    return options["devices"] * options["num_nodes"]


def _measured(task: Task, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The event that carries one cell's numbers."""
    started = time.perf_counter()
    if evaluation["options"] is None:
        options = task["pretrain"]
        images = options["batch_size"] * options["accumulate"] * _devices(options)
        metrics = training_metrics(read_metrics(Path(task["folder"]) / METRICS), images_per_step=images)
        timings = {name: metrics.pop(name) for name in ("seconds", "images_per_second")}
        record = {"metrics": metrics, "timings": timings, **describe_environment()}
    else:
        options = {name: _object(value) for name, value in evaluation["options"].items()}
        record = evaluate(task["folder"], **options, seed=task["seed"], device=task["device"])
        record["timings"] = {**record["timings"], "seconds": time.perf_counter() - started}
    return {"event": "cell", "key": evaluation["key"], "record": record}


def _object(value: Any) -> Any:
    if isinstance(value, Mapping):
        return specs.build(value)
    return tuple(value) if isinstance(value, list) else value


def _failure(evaluation: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, UserError):
        reason = f"{type(error).__name__}: {reason}"
    return {
        "event": "failed",
        "key": evaluation["key"],
        "error": reason,
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    main()
