"""How long a trial takes: from an earlier run of the same work, or from this machine's rate."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from harness import data
from harness.cost.operations import step_flops
from harness.spec.trial import Trial

_START_S = 30.0  # interpreter, framework, compilation and small tensors of the parity gate, if nothing is known yet
_OVER_FLOOR = 1.5  # a training step over its matmul floor, if nothing is known yet
_EVAL_COST = 1 / 3  # the forward pass only, relative to forward and backward


@cache
def matmul_flops_per_s(size: int = 1024) -> float:
    """This machine's float32 matrix product rate in NumPy, best of three: an optimistic rate for a CPU trial.

    The smallest whose rate is that of the large ones, so that `plan` does not wait for it.
    """
    a = np.ones((size, size), np.float32)  # the values do not matter
    best_s = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        np.matmul(a, a)
        best_s = min(best_s, time.perf_counter() - start)
    return 2 * size**3 / best_s


def estimate_s(trial: Trial, known: Iterable[tuple[Trial, dict[str, Any]]]) -> float | None:
    """Seconds that `trial` should take, an upper bound if a rule may stop it; None on a GPU that has not run this model.

    Based on the finished trial in `known` with the same implementation, model and resources if there is one; else on
    the counted operations and this CPU's matmul rate, which is right within a factor of about two.
    """
    train, validation, test = data.sizes(trial.data)
    own_test = min(test, data.about(trial.data).test)  # even if it is tested on another data set at the end
    each_epoch = validation + (own_test if trial.train.stop.images == "test" else 0)
    images = trial.train.epochs * (train + _EVAL_COST * each_epoch) + _EVAL_COST * test
    # the gate: two steps and a trajectory of full batches, and the specification, which takes about as long
    if trial.parity.gate:
        images += 2 * (2 + trial.parity.steps) * trial.train.batch
    for other, result in known:
        if result["img_per_s"] and _same_work(trial, other):
            return result["compile_s"] + _START_S / 2 + images / result["img_per_s"]
    if trial.gpus:
        return None
    return _START_S + images * step_flops(trial.model, 1) * _OVER_FLOOR / matmul_flops_per_s()


def _same_work(a: Trial, b: Trial) -> bool:
    def work(trial: Trial) -> tuple[Any, ...]:
        return trial.impl, trial.model, trial.train.batch, trial.runtime, trial.cpus, trial.gpus

    return work(a) == work(b)
