"""The `capsbench` command as a user meets it, in its own process; and third-party implementations to run with it.

Suites refer to these as `run_helpers:HeldNet`: this folder is in the command's PYTHONPATH, like a user's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harness.parity.inputs import drawn
from harness.spec import EpochPlan, TrainTotals
from impls.numpy import NumpyImpl
from impls.numpy import layers as F
from impls.numpy.models.capsnet import Activations
from tests.docs.json_page import unlike

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]
SMALL = {
    "name": "small",
    "data": {"name": "digits", "train": 64, "validation": 16, "test": 16, "augment": {"shift": 1}},
    "model": {
        "conv_channels": 4, "primary_types": 2, "primary_dim": 4, "digit_dim": 4, "decoder_units": [8, 8], "routing": 2,
    },
    "train": {"epochs": 2, "batch": 16},
    "runtime": {"compile": False},
    "grid": {"impl": ["numpy"]},
    "parity": {"steps": 2},
    "resources": {"cpus": 1, "gpus": 0},
}  # fmt: skip
"""A suite of one trial that takes a second, nearly all of it imports."""

# Put before all else on the import path, this makes the packages it is told of invisible to `import` and `find_spec`.
_HIDING = """
import os, sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in os.environ["CAPSBENCH_TEST_HIDDEN"].split(",")
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[:] = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


class HeldNet(NumpyImpl):
    """In the middle of epoch CAPSBENCH_TEST_HOLD, counted from 1, stays there; never where that is not set."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        own = len(self.labels) - len(drawn(self.model)[1])
        is_gate = plan.order.max() >= own  # it looks at drawn images too
        epoch = self.moments.step // -(-own // plan.batch) + 1
        if not is_gate and str(epoch) == os.environ.get("CAPSBENCH_TEST_HOLD"):
            half = len(plan.order) // 2
            super().train(EpochPlan(plan.order[:half], plan.shifts[:half], plan.batch))
            print(f"held in epoch {epoch}", flush=True)
            time.sleep(600)
        return super().train(plan)


class CommandNet(NumpyImpl):
    """At the end of epoch CAPSBENCH_TEST_EPOCH, counted from 1, runs the shell command CAPSBENCH_TEST_COMMAND."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        totals = super().train(plan)
        epoch = self.moments.step // -(-len(self.labels) // plan.batch)
        if str(epoch) == os.environ.get("CAPSBENCH_TEST_EPOCH"):
            subprocess.run(os.environ["CAPSBENCH_TEST_COMMAND"], shell=True, check=False)
        return totals


class RaisingNet(NumpyImpl):
    """Has a fault of its own."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.moments.step > 2:
            raise RuntimeError("no [such] kernel")
        return super().train(plan)


class WrongAxisNet(NumpyImpl):
    """The classic mistake: couplings that sum to one over the input capsules, not over the output capsules."""

    def _forward(self, images: np.ndarray) -> Activations:
        right = F.softmax
        F.softmax = lambda logits, leak=False: right(logits.swapaxes(1, 2), leak).swapaxes(1, 2)
        try:
            return super()._forward(images)
        finally:
            F.softmax = right


def write_suite(folder: Path, **changes: Any) -> Path:
    """A suite like SMALL; `changes` are sections, merged into its own, or plain values."""
    document = dict(SMALL)
    for key, value in changes.items():
        document[key] = {**SMALL.get(key, {}), **value} if isinstance(value, dict) else value
    path = folder / f"{document['name']}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def environment(folder: Path, hide: str = "", **more: str) -> dict[str, str]:
    """What the command runs in: `folder` for temporary files and core leases, the packages in `hide` not to be found."""
    (folder / "tmp").mkdir(exist_ok=True)
    paths = [ROOT, HELPERS]
    if hide:
        (folder / "hiding").mkdir(exist_ok=True)
        (folder / "hiding" / "sitecustomize.py").write_text(_HIDING)
        paths.insert(0, folder / "hiding")
        more["CAPSBENCH_TEST_HIDDEN"] = hide
    ours = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "TMPDIR": str(folder / "tmp")}
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "CAPSBENCH_DATA")}
    return {**inherited, **ours, **more}


def start(folder: Path, *arguments: object, hide: str = "", figures: bool = False, **env: str) -> subprocess.Popen[str]:
    """`capsbench ARGUMENTS` in `folder`, in a process group of its own, as a shell would start it.

    A `run` draws no figures, which takes some seconds a trial, unless `figures`.
    """
    if arguments[0] == "run" and not figures:
        arguments = (*arguments, "--no-figures")
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        cwd=folder,
        env=environment(folder, hide, **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def capsbench(
    folder: Path, *arguments: object, hide: str = "", figures: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """`capsbench ARGUMENTS`, to its end; `figures` as in `start`."""
    process = start(folder, *arguments, hide=hide, figures=figures, **env)
    stdout, stderr = process.communicate(timeout=240)
    if "--json" in arguments and stdout.startswith("{") and process.returncode in (0, 1, 2, 130):
        wrong = unlike(str(next(each for each in arguments if each != "--json")), json.loads(stdout))
        assert not wrong, f"docs/json.md: {wrong}"
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def events_of(run_dir: Path, impl: str) -> list[dict[str, Any]]:
    """The journal of the only trial of `impl` in the run; empty as long as there is none."""
    for path in run_dir.glob("trials/*/trial.json"):
        if json.loads(path.read_text())["impl"] == impl and (path.parent / "events.jsonl").exists():
            lines = (path.parent / "events.jsonl").read_text().split("\n")[:-1]
            return [json.loads(line) for line in lines]
    return []


def contents(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Path -> bytes of every file of `folder` that a pattern matches."""
    return {str(path): path.read_bytes() for pattern in patterns for path in sorted(folder.glob(pattern))}


def repeatable(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result must be the same in every run of a trial on this machine: all that is neither time nor place."""
    incidental = {"time", "attempt", "warmup", "epoch_s", "eval_s", "img_per_s", "joules"}
    same = ("id", "status", "test_err_pct", "test_loss", "val_err_pct", "weights_sha256", "data_sha256")
    epochs = [{key: value for key, value in epoch.items() if key not in incidental} for epoch in result["epochs"]]
    return {**{key: result[key] for key in same}, "epochs": epochs}


def wait_for(condition: Callable[[], Any], what: str, process: subprocess.Popen[str], within_s: float = 90) -> Any:
    """What `condition` returns once that is true. Fails if `process` ends first, or when the time is up."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert process.poll() is None, f"ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"no {what} within {within_s:g} s"
        time.sleep(0.02)
    return found


@contextmanager
def started(folder: Path, *arguments: object, **env: Any) -> Generator[subprocess.Popen[str]]:
    """As `start`; whatever the test does, the process does not outlive it."""
    process = start(folder, *arguments, **env)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
