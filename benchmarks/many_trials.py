"""What a run of very many tiny trials costs: `python benchmarks/many_trials.py [TRIALS]` (1,000 by default) prints it.

A third of the trials are of each framework, each of one epoch of 64 images, run as `capsbench run` always does: with
Ray, MLflow and the journal. Printed are the seconds of the whole command by trial, what the driver's own memory grew by
from the first tenth of the trials to the last, and whether MLflow has each trial exactly once.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
IMPLS = ("torch", "tf", "jax")
SUITE = """\
name: many
data: {name: digits, train: 64, validation: 16, test: 32}
model: {conv_channels: 4, primary_types: 2, primary_dim: 4, digit_dim: 4, decoder: false}
train: {epochs: 1, batch: 32}
resources: {cpus: 1}
"""


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seeds = list(range(-(-trials // len(IMPLS))))
        (folder / "many.yaml").write_text(f"{SUITE}grid: {{impl: [{', '.join(IMPLS)}], seed: {seeds}}}\n")
        command = [sys.executable, "-m", "harness", "run", str(folder / "many.yaml"), "--out", str(folder / "runs")]
        began = time.perf_counter()
        memory: list[tuple[int, int]] = []  # finished trials, the driver's own bytes
        with (folder / "log").open("wb") as log:
            driver = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            while driver.poll() is None:
                time.sleep(2)
                finished = len(list((folder / "runs" / "many" / "trials").glob("*/result.json")))
                try:
                    memory.append((finished, psutil.Process(driver.pid).memory_full_info().uss))
                except psutil.Error:
                    break
            code = driver.wait()
        took_s = time.perf_counter() - began
        if code:
            sys.exit((folder / "log").read_text()[-2000:])
        count = len(seeds) * len(IMPLS)
        print(f"{platform.platform()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
        print(f"{count} trials in {took_s:.0f} s: {took_s / count:.2f} s each")
        first, last = (next(used for done, used in memory if done >= part * count) for part in (0.1, 0.99))
        print(f"driver: {first / 1e6:.0f} MB at a tenth of the trials, {last / 1e6:.0f} MB at their end")
        print(f"MLflow: {_in_mlflow(folder / 'runs', count)}")


def _in_mlflow(out: Path, count: int) -> str:
    """What is missing, or there more than once, of the finished trials."""
    with sqlite3.connect(out / "mlflow.db") as database:
        stored = [str(row[0]) for row in database.execute(
            "select t.value from tags t join runs r using (run_uuid)"
            " where t.key = 'capsbench.trial' and t.value != '' and r.status = 'FINISHED'"
        )]  # fmt: skip
        twice = database.execute(
            "select count(*) from (select 1 from metrics group by run_uuid, key, step having count(*) > 1)"
        ).fetchone()[0]
    names = {json.loads(path.read_text())["id"] for path in out.glob("*/trials/*/trial.json")}
    found = [each for each in stored if each in names]
    missing, doubled = len(names - set(found)), len(found) - len(set(found))
    return f"{len(set(found))} of {count} trials; {missing} missing, {doubled} doubled, {twice} metrics doubled"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
