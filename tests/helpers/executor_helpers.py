"""Trials small enough to run by the dozen, and implementations that each misbehave in one way."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.events import TrialEvent
from harness.executors.base import Job
from harness.spec import (
    EpochPlan,
    EvalTotals,
    Loss,
    ModelSpec,
    Moments,
    OptimSpec,
    Runtime,
    TimingWarning,
    TrainTotals,
    Weights,
)
from harness.spec.trial import DataConfig, ParityConfig, RuntimeConfig, TrainConfig, Trial
from impls.numpy import NumpyImpl

FRAMEWORKS = ("torch", "tensorflow", "jax")
MODEL = ModelSpec(
    routing=1,
    decoder=False,
    conv_channels=2,
    primary_types=1,
    primary_dim=2,
    digit_dim=2,
    image=(28, 28, 1),
    classes=10,
)


class TinyNet(NumpyImpl):
    """Trains by adding one to a bias, so that the weights tell how many epochs were trained. Needs no GPU, given one or not."""

    def __init__(self, model: ModelSpec, optim: OptimSpec, runtime: Runtime) -> None:
        super().__init__(model, optim, runtime.model_copy(update={"device": "cpu"}))

    def train(self, plan: EpochPlan) -> TrainTotals:
        self.weights["conv1.b"] = self.weights["conv1.b"] + 1
        return TrainTotals(len(plan.order), Loss(0.5, 0.5, 0.0), correct=1)


class SlowNet(TinyNet):
    """Half a second an epoch."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        time.sleep(0.5)
        return super().train(plan)


class HeldNet(TinyNet):
    """Trains no third epoch unless it was resumed, so that whatever ends its first attempt ends it after the second.

    It is right about every image before, and wrong about every image after: its best epoch is its first attempt's.
    """

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        super().load(weights, moments)
        self.is_resumed = weights["conv1.b"][0] >= 1

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.weights["conv1.b"][0] >= 2 and not self.is_resumed:
            time.sleep(600)
        return super().train(plan)

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> EvalTotals:
        return replace(super().evaluate(images, labels), predicted=(labels + self.is_resumed) % self.model.classes)


class HeldUpNet(TinyNet):
    """Trains one epoch an attempt, and then waits for what becomes of it."""

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        super().load(weights, moments)
        self.at_first = weights["conv1.b"][0]

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.weights["conv1.b"][0] > self.at_first:
            time.sleep(600)
        return super().train(plan)


class EndlessNet(TinyNet):
    """Never gets through its second epoch, so that whatever happens to it happens in the middle of one."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.weights["conv1.b"][0] >= 1:
            time.sleep(600)
        return super().train(plan)


class HoldingNet(EndlessNet):
    """As EndlessNet, but in code that never gives Python a chance to handle a signal or to run another thread."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.weights["conv1.b"][0] >= 1:
            import ctypes

            ctypes.PyDLL(None).sleep(600)  # a PyDLL call keeps the interpreter's lock
        return super().train(plan)


class KilledNet(TinyNet):
    """Dies in its second epoch as the kernel's out-of-memory killer would have it."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.weights["conv1.b"][0] >= 1:
            print("about to die", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(plan)


class LostNet(TinyNet):
    """Is killed in its second epoch, unless it was resumed."""

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        super().load(weights, moments)
        self.is_resumed = weights["conv1.b"][0] >= 1

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.weights["conv1.b"][0] >= 1 and not self.is_resumed:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(plan)


class SpinningNet(TinyNet):
    """In its second epoch, computes and gets nowhere, in code that keeps the interpreter's lock."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        if self.weights["conv1.b"][0] >= 1:
            sum(range(10**12))
        return super().train(plan)


class LongNet(TinyNet):
    """Computes for a second at a time, in code that keeps the interpreter's lock, as a compiler may."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        sum(range(4 * 10**7))
        return super().train(plan)


class ExitingNet(TinyNet):
    """Leaves the process behind Python's back."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        print("last words", flush=True)
        os._exit(3)


class OrphaningNet(TinyNet):
    """Starts a process, tells its number in the log, and dies."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return super().train(plan)


class MeetingNet(TinyNet):
    """Trains once as many trials as CAPSBENCH_TEST_MEETING says are training, each having left a file in that folder."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        folder, _, expected = os.environ["CAPSBENCH_TEST_MEETING"].rpartition(":")
        Path(folder, str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while len(list(Path(folder).iterdir())) < int(expected):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expected} trials never ran at once")
            time.sleep(0.05)
        return super().train(plan)


class StarvedNet(TinyNet):
    """Fails as torch does when a GPU's memory is full."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2.00 GiB")


class GluttonNet(TinyNet):
    """Fills memory until there is no more for it, under a limit of its own."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 400 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        eaten = []
        while True:
            eaten.append(np.ones(2**23))  # 64 MiB


class AbortingNet(TinyNet):
    """Ends as a C++ library does that catches nothing."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        print("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc", flush=True)
        os.abort()


class RefusingNet(TinyNet):
    """Has something to say to the user."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        raise UserError("no such thing; do the other")


class WarningNet(TinyNet):
    """Warns twice of one thing and once of another, from one line."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        for text in ("clock is slow", "clock is slow", "clock is fast"):
            warnings.warn(text, TimingWarning, stacklevel=1)
        warnings.warn("not about timing", UserWarning, stacklevel=1)
        return super().train(plan)


class MovingNet(TinyNet):
    """Lets its process run on every core, as some libraries do for their first threads."""

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        super().load(weights, moments)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


class TellingNet(TinyNet):
    """Prints what a worker is to be sure of before its implementation is built."""

    def load(self, weights: Weights, moments: Moments | None = None) -> None:
        super().load(weights, moments)
        loaded = [name for name in FRAMEWORKS if name in sys.modules]
        print(json.dumps({"env": dict(os.environ), "frameworks": loaded, "session": os.getsid(0), "pid": os.getpid()}))


def tiny_trial(
    impl: str = "TinyNet",
    *,
    epochs: int = 2,
    cpus: int = 1,
    gpus: int = 0,
    seed: int = 0,
    validation: int = 0,
    keep_every: int | None = None,
    retries: int = 1,
) -> Trial:
    """A trial of one of the classes above, which takes a second or so, nearly all of it imports."""
    return Trial(
        id=f"{impl}-{seed}",
        suite="tiny",
        impl=f"tests.helpers.executor_helpers:{impl}",
        seed=seed,
        params={},
        data=DataConfig(name="digits", train=16, validation=validation, test=16),
        model=MODEL,
        train=TrainConfig(epochs=epochs, batch=8, keep_every=keep_every),
        runtime=RuntimeConfig(retries=retries),
        parity=ParityConfig(gate=False, steps=0, audit=False),
        cpus=cpus,
        gpus=gpus,
    )


def tiny_job(run_dir: Path, impl: str = "TinyNet", **options: Any) -> Job:
    return Job(tiny_trial(impl, **options), run_dir)


def trained_epochs(weights: Path) -> int:
    """How many epochs the weights of a TinyNet have seen."""
    from safetensors.numpy import load_file

    return int(np.round(load_file(weights)["conv1.b"][0]))


class Record:
    """An `emit` that keeps everything."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, trial_id: str, event: TrialEvent) -> None:
        assert trial_id == event.trial
        self.events.append(event.to_json())

    def of(self, trial: str, kind: str | None = None) -> list[dict[str, Any]]:
        return [e for e in self.events if e["trial"] == trial and kind in (None, e["kind"])]

    def kinds(self, trial: str) -> list[str]:
        """Without waiting: whether a trial had to depends on what else runs here."""
        return [event["kind"] for event in self.of(trial) if event["kind"] != "waiting"]


def gone(pids: list[int], within_s: float = 15) -> bool:
    """Whether all these processes are dead, or die within the time."""
    deadline = time.monotonic() + within_s
    while any(_is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
