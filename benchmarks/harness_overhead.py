"""What the harness adds to an epoch: `python benchmarks/harness_overhead.py [EPOCHS [IMPL...]]` prints it.

A trial of `suites/quickstart.yaml` runs as always: its worker, its supervisor, its clock, a checkpoint after every epoch.
After each epoch, where the clock does not run, the same implementation object in the same process runs the same plan in
a bare loop, under nothing but `time.perf_counter`. The two alternate, so that a drift of the machine meets both.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import registry
from harness.attempt import Seat, run_attempt
from harness.config import Trial
from harness.executor import Job
from harness.leases import lease, local_cores
from harness.spec import EpochPlan, Moments, TrainTotals
from harness.stats import median_interval
from harness.suite import load_suite

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 12


class Bare:
    """Mixed into an implementation: after an epoch's checkpoint, the same epoch once more, in a bare loop."""

    plan: EpochPlan | None = None

    def train(self: Any, plan: EpochPlan) -> TrainTotals:
        self.plan = plan if len(plan.order) > plan.batch else None  # not the single step of `compile`
        return super().train(plan)

    def dump_moments(self: Any) -> Moments:
        moments = super().dump_moments()  # the last that a checkpoint takes
        if self.plan is not None:
            start = time.perf_counter()
            super().train(self.plan)
            print(f"bare {time.perf_counter() - start}")
        return moments


def __getattr__(name: str) -> type:
    """`Torch`, `Tf`, `Jax`, `Numpy`: what a trial names as `harness_overhead:Torch`."""
    if name.lower() not in registry.names():
        raise AttributeError(name)
    return type(name, (Bare, registry.load(registry.resolve(name.lower()))), {})


def epochs_of(impl: str, epochs: int, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each epoch but the first: by the harness's clock, in the bare loop, and of all between two epochs."""
    settings = (f"impl=harness_overhead:{impl.capitalize()}", f"train.epochs={epochs}", "parity.gate=false")
    trial: Trial
    (trial,) = load_suite(ROOT / "suites" / "quickstart.yaml", settings).trials(0, lambda _: {})
    job = Job(trial, folder)
    job.folder.mkdir(parents=True)
    events: list[dict[str, Any]] = []
    with lease("core", local_cores(), trial.cpus) as cores:
        run_attempt(job.document(), Seat(cores), events.append, job.log_path, job.folder, None)
    if events[-1]["kind"] != "result":
        raise SystemExit(f"{impl}: {events[-1]}")
    bare = [float(value) for value in re.findall(r"^bare (\S+)$", job.log_path.read_text(), re.MULTILINE)]
    told = [event for event in events if event["kind"] == "epoch"]
    between = [
        after["time"] - before["time"] - after["epoch_s"] - after["eval_s"] - loop
        for before, after, loop in zip(told, told[1:], bare[1:], strict=False)
    ]
    return [event["epoch_s"] for event in told][1:], bare[1:], between


def main(epochs: int, impls: list[str]) -> None:
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}; {epochs - 1} epochs each"
    )
    for impl in impls:
        with tempfile.TemporaryDirectory() as folder:
            timed, bare, between = epochs_of(impl, epochs, Path(folder))
        ratios = [100 * (a / b - 1) for a, b in zip(timed, bare, strict=True)]
        interval = median_interval(ratios)
        shown = f" (95% interval {interval[0]:+.2f} to {interval[1]:+.2f}%)" if interval else ""
        print(
            f"{impl}: {statistics.median(timed):.4f} s an epoch under the harness, {statistics.median(bare):.4f} s bare: "
            f"{statistics.median(ratios):+.2f}%{shown}; {1e3 * statistics.median(between):.0f} ms between two epochs"
        )


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))  # where the worker finds this module too
    main(int(sys.argv[1]) if len(sys.argv) > 1 else EPOCHS, sys.argv[2:] or ["torch", "tf", "jax"])
