"""Worker processes, and what they say."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from dppmask.reproduce.machine import Machine

COMMAND = [sys.executable, "-m", "dppmask.reproduce.worker"]
PATIENCE = 60.0  # seconds that a worker has to save when it is told to stop


class Worker:
    """One worker process.

    Args:
        machine: Whose.
        number: Which of its workers.
        lock: File descriptor of the work folder's lock, which the worker holds as long as it lives.
    """

    def __init__(self, machine: Machine, number: int, lock: int) -> None:
        self.number = number
        self.task: Any = None  # what it is doing
        log = machine.work / f"worker-{number}.log"
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # a buffer would hide events from the selector
                env=machine.environment(number),
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C is the parent's, who tells its workers to save
            )
        self.log: Path = log

    def give(self, task: dict[str, Any]) -> None:
        """Hand it work; a process that is gone is noticed when its events end."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def next_event(self) -> dict[str, Any] | None:
        """Its next event; None if it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def stop(self) -> None:
        """Tell it to save and end."""
        self.process.terminate()

    def end(self) -> None:
        """Let it end, after what it is told already."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
            self.process.wait(PATIENCE)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Pool:
    """Workers, started when there is work for them.

    Args:
        machine: Where.
        lock: See :class:`Worker`.
    """

    def __init__(self, machine: Machine, lock: int) -> None:
        self.machine = machine
        self.lock = lock
        self.workers: dict[int, Worker] = {}
        self._selector = DefaultSelector()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left behind; what is interrupted saves first."""
        if error[0] is not None:
            for worker in self.workers.values():
                worker.stop()
            for worker in self.workers.values():
                try:
                    worker.process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    worker.process.kill()
        for worker in list(self.workers.values()):
            self._remove(worker)
        self._selector.close()

    def idle(self) -> Worker | None:
        """A worker without work, a new one if need be; None if all are busy."""
        for number in range(self.machine.jobs):
            if number not in self.workers:
                self.workers[number] = worker = Worker(self.machine, number, self.lock)
                self._selector.register(worker.process.stdout, EVENT_READ, worker)  # type: ignore[arg-type]
            if self.workers[number].task is None:
                return self.workers[number]
        return None

    def busy(self) -> list[Worker]:
        """Workers at work."""
        return [worker for worker in self.workers.values() if worker.task is not None]

    def events(self, timeout: float) -> Iterator[tuple[Worker, dict[str, Any]]]:
        """What workers say within a time; one that died says {"event": "died"} and is gone."""
        for key, _ in self._selector.select(timeout):
            worker: Worker = key.data
            event = worker.next_event()
            if event is None:
                self._remove(worker)
                event = {"event": "died", "code": worker.process.returncode}
            yield worker, event

    def _remove(self, worker: Worker) -> None:
        self._selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        worker.end()
        del self.workers[worker.number]
