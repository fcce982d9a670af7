"""What the harness adds to an epoch: `python benchmarks/harness_overhead.py [EPOCHS [IMPL...]]` prints it.

`capsbench run suites/quickstart.yaml` runs as usual, with Ray, MLflow, the screen, and a checkpoint after every epoch.
It can slow an epoch in two ways. Both are measured within the epoch itself, so that a noisy machine blurs neither:

- the clock: the difference between the harness's time and one taken around the implementation's own loop;
- the cores: the share of the trial's cores used meanwhile by the harness's other processes (the command, Ray, MLflow).

In addition, after each epoch the same object in the same process runs the same plan in a bare loop, outside the
harness's clock. The two alternate, so that a drift of the machine affects both.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from harness import registry
from harness.journal.journal import Journal
from harness.spec import EpochPlan, Moments, TrainTotals
from harness.stats import median_interval

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 12


class Bare:
    """Mixed into an implementation: after an epoch's checkpoint it runs the same epoch again, in a bare loop."""

    plan: EpochPlan | None = None

    def train(self: Any, plan: EpochPlan) -> TrainTotals:
        if len(plan.order) <= plan.batch:  # the single step of `compile`
            return super().train(plan)
        self.plan = plan
        start = time.perf_counter()
        totals = super().train(plan)
        print(f"own {time.perf_counter() - start}")
        return totals

    def dump_moments(self: Any) -> Moments:
        moments = super().dump_moments()  # the last thing that a checkpoint needs
        if self.plan is not None:
            start = time.perf_counter()
            super().train(self.plan)
            print(f"bare {time.perf_counter() - start}")
        return moments


def __getattr__(name: str) -> type:
    """`Torch`, `Tf`, `Jax`, `Numpy`: the classes that trials name, such as `harness_overhead:Torch`."""
    if name.lower() not in registry.names():
        raise AttributeError(name)
    return type(name, (Bare, registry.load(registry.resolve(name.lower()))), {})


def watched(command: list[str], **options: Any) -> tuple[str, Callable[[float, float], float]]:
    """The command's output, and a function: the mean cores used by its processes except trials between two moments."""
    times: list[float] = []
    totals: list[float] = []
    seconds: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as printed, subprocess.Popen(command, stdout=printed, **options) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            for each in [root, *root.children(recursive=True)]:
                with suppress(psutil.Error):
                    if "harness.worker.trial" not in each.cmdline():
                        spent = each.cpu_times()
                        seconds[each.pid] = spent.user + spent.system
            times.append(time.time())
            totals.append(sum(seconds.values()))
            time.sleep(0.5)
        if process.returncode:
            raise SystemExit(process.returncode)
        printed.seek(0)
        return printed.read(), lambda start, end: float(
            np.diff(np.interp([start, end], times, totals))[0] / (end - start)
        )


def measured(epochs: int, impls: list[str], folder: Path) -> dict[str, tuple[list[float], str, float]]:
    """Implementation -> seconds per epoch by the harness's clock, its process's output, cores used by the harness."""
    names = ",".join(f"harness_overhead:{impl.capitalize()}" for impl in impls)
    settings = [f"impl={names}", f"train.epochs={epochs}", "parity.gate=false"]
    command = [sys.executable, "-m", "harness", "run", str(ROOT / "suites" / "quickstart.yaml"), "--json"]
    command += [*(part for setting in settings for part in ("-s", setting)), "--out", str(folder)]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    printed, cores = watched(command, env={**os.environ, "PYTHONPATH": path})
    found: dict[str, tuple[list[float], str, float]] = {}
    document = json.loads(printed)
    run_dir = Path(document["run_dir"])
    for trial in document["trials"]:
        told = [event for event in Journal(run_dir).events(trial["id"]) if event["kind"] == "epoch"]
        seconds = [float(event["epoch_s"]) for event in told]
        log = (run_dir / trial["log"]).read_text()
        found[trial["impl"].rpartition(":")[2].lower()] = seconds, log, cores(told[0]["time"], told[-1]["time"])
    return found


def main(epochs: int, impls: list[str]) -> None:
    count = len(os.sched_getaffinity(0))
    print(f"{platform.platform()}, {count} cores, Python {platform.python_version()}; {epochs - 1} epochs each")
    with tempfile.TemporaryDirectory() as folder:
        for impl, (told, log, cores) in measured(epochs, impls, Path(folder)).items():
            own = [float(value) for value in re.findall(r"^own (\S+)$", log, re.MULTILINE)]
            bare = [float(value) for value in re.findall(r"^bare (\S+)$", log, re.MULTILINE)]
            # the first epoch is a warm-up
            clock = [100 * (seconds / inner - 1) for seconds, inner in zip(told, own, strict=True)][1:]
            ratios = [100 * (seconds / loop - 1) for seconds, loop in zip(told, bare, strict=True)][1:]
            interval = median_interval(ratios)
            shown = f" (95% interval {interval[0]:+.1f} to {interval[1]:+.1f}%)" if interval else ""
            print(
                f"{impl}: clock {statistics.median(clock):+.3f}%, processes {100 * cores / count:.2f}% of the cores; "
                f"{statistics.median(told[1:]):.4f} s an epoch, bare {statistics.median(bare[1:]):.4f} s: "
                f"{statistics.median(ratios):+.1f}%{shown}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else EPOCHS, sys.argv[2:] or ["torch", "tf", "jax"])
