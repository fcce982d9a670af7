"""Implementations for the tests of `capsbench speed`: some report the parts of a step, others fail at some point."""

from __future__ import annotations

import gzip
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.spec import Cut, EpochPlan, Loss, TrainTotals, Weights
from impls.numpy import NumpyImpl


class Parted(NumpyImpl):
    """Tells what its step consists of, and can be traced."""

    def parts(self) -> dict[str, Callable[[], None]]:
        return {"conv": lambda: time.sleep(0.002), "routing": lambda: time.sleep(0.001)}

    def trace(self, plan: EpochPlan, path: Path) -> None:
        assert (len(plan.order), plan.batch) == (16, 16)
        with gzip.open(path, "wt") as file:
            file.write('{"traceEvents": []}')


class Cutting(NumpyImpl):
    """Cuts its step short: before everything, after a part with a delay, and after one that takes no time."""

    def truncated(self) -> list[Cut]:
        def lasting(seconds: float) -> Callable[[EpochPlan], None]:
            return lambda plan: time.sleep(seconds * len(plan.order) / plan.batch)

        return [
            Cut("other", lasting(0)),
            Cut("conv", lasting(0.004), lasting(0.001)),
            Cut("idle", lasting(0.004), lasting(0.001)),
            Cut("optimiser", self.train),
        ]


class Starved(NumpyImpl):
    """Has not enough memory for its compiled step."""

    def compile(self, batch: int) -> None:
        raise MemoryError(f"unable to allocate {batch} images")


class Wrong(NumpyImpl):
    """One gradient is off."""

    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        loss, grads = super().loss_and_grads(images, labels)
        return loss, {**grads, "digit.w": 1.3 * grads["digit.w"]}


class Dies(Parted):
    """Is killed in its second round: each has two epochs, one of them untimed."""

    epochs = 0

    def train(self, plan: EpochPlan) -> TrainTotals:
        self.epochs += 1
        if self.epochs == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(plan)


class Untold(Parted):
    """Fails when asked for its parts, once all has been timed."""

    def parts(self) -> dict[str, Callable[[], None]]:
        raise RuntimeError("no parts today")


class Diverges(NumpyImpl):
    """Its loss is not a number. It cannot be traced, and tells no parts."""

    def train(self, plan: EpochPlan) -> TrainTotals:
        return replace(super().train(plan), loss=Loss(float("nan"), 0.0, 0.0))


class Held(NumpyImpl):
    """Says who it is, and stays where it is."""

    def compile(self, batch: int) -> None:
        Path("pid").write_text(str(os.getpid()))
        while True:
            time.sleep(0.01)
