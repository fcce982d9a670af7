"""What a run of three trials costs besides training: `python benchmarks/overhead.py [rounds]` prints it.

Overhead is the command's wall time minus its trials' compilation, parity, epochs, validation and test. Every round runs
the quickstart suite with and without MLflow, so that the epochs of both can be compared.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 5


def run(out: Path, *options: str) -> tuple[float, float, list[dict[str, Any]]]:
    """Runs the suite; returns when the command began and ended, and each trial's implementation and events by kind."""
    command = [sys.executable, "-m", "harness", "run", "suites/quickstart.yaml", "--out", str(out)]
    began = time.time()
    done = subprocess.run(
        [*command, *options, "-s", f"train.epochs={EPOCHS}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    ended = time.time()
    if done.returncode:
        raise SystemExit(done.stderr)
    trials: list[dict[str, Any]] = []
    for folder in out.glob("*/trials/*"):
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        trial: dict[str, Any] = {event["kind"]: event for event in events}
        trial["impl"] = json.loads((folder / "trial.json").read_text())["impl"]
        trial["epochs"] = [event for event in events if event["kind"] == "epoch"]
        trials.append(trial)
    return began, ended, sorted(trials, key=lambda trial: trial["attempt"]["time"])


def seconds(began: float, ended: float, trials: list[dict[str, Any]]) -> dict[str, float]:
    """Where the wall time went; the last entry is the rest: starting workers, checkpoints, weights."""
    ready = [trial["ready"] for trial in trials]
    epochs = [epoch for trial in trials for epoch in trial["epochs"]]
    training = sum(each["compile_s"] + each["parity_s"] for each in ready)
    training += sum(epoch["epoch_s"] + epoch["eval_s"] for epoch in epochs)
    training += sum(trial["result"]["test_s"] for trial in trials)
    parts = {
        "training": training,
        "start, to the first worker": trials[0]["attempt"]["time"] - began,
        "imports of frameworks": sum(each["import_s"] for each in ready),
        "data and models": sum(each["data_s"] + each["build_s"] for each in ready),
        "end, from the last result": ended - trials[-1]["result"]["time"],
    }
    return {**parts, "workers, checkpoints": ended - began - sum(parts.values())}


def main(rounds: int) -> None:
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    steady: dict[str, list[list[float]]] = {}
    for each in range(rounds):
        for tracked, options in enumerate((["--no-mlflow"], [])):
            with tempfile.TemporaryDirectory() as folder:
                began, ended, trials = run(Path(folder), *options)
            parts = seconds(began, ended, trials)
            overhead = sum(parts.values()) - parts["training"]
            shown = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
            print(f"round {each + 1}, {'MLflow' if tracked else 'no MLflow'}: overhead {overhead:.1f} s ({shown})")
            for trial in trials:
                pair = steady.setdefault(trial["impl"], [[], []])
                pair[tracked] += [epoch["epoch_s"] for epoch in trial["epochs"][1:]]
    for impl, (without, with_mlflow) in steady.items():
        a, b = statistics.median(without), statistics.median(with_mlflow)
        spread = max(without) / min(without) - 1
        print(
            f"{impl}: {b:.3f} s an epoch tracked, {a:.3f} s not: {100 * (b / a - 1):+.1f}% (epochs spread {spread:.0%})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
