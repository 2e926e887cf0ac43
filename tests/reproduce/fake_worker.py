"""Speaks like dppmask.reproduce.worker and measures nothing; a file beside it says what is to go wrong."""

import json
import os
import signal
import sys
import time
from pathlib import Path

TROUBLE = json.loads(Path(sys.argv[1]).read_text())


def say(**event):
    print(json.dumps(event), flush=True)


def told_to_stop(number, frame):
    Path(sys.argv[1]).with_name("stopped").touch()
    sys.exit(4)


signal.signal(signal.SIGTERM, told_to_stop)
for line in sys.stdin:
    task = json.loads(line)
    Path(task["folder"]).mkdir(parents=True, exist_ok=True)
    for evaluation in task["evaluations"]:
        key = evaluation["key"]
        match TROUBLE.get(key):
            case "fail":
                say(event="failed", key=key, error="no luck", traceback="Traceback …")
                continue
            case "die":
                os._exit(9)
            case "wait":
                time.sleep(60)
        record = {
            "protocol": "KNN",
            "settings": {},
            "subject": {"source": task["folder"]},
            "data": {"cache_dir": task["folder"]},
            "command": task["folder"],
            "standard_errors": {},
            "baselines": {},
            "tables": {"neighbours": [{"rank": 1}]},
            "metrics": {"loss": 1.0, "knn_top1_k3": 0.5},
            "timings": {"seconds": 1.0, "images_per_second": 8.0},
            "date": "today",
            "commit": None,
            "hardware": {"gpus": [], "cpu": "none", "cpu_cores": 1},
            "versions": {"torch": "2", "timm": "1"},
        }
        say(event="cell", key=key, record=record)
    say(event="done")
