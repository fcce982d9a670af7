"""The two ways to climb the ladder: `capsbench parity`, and the gate of `capsbench run` before it times a trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.data import Split
from harness.parity.inputs import repeated
from harness.parity.ladder import Ladder
from harness.spec import Conventions, Impl, ModelSpec, OptimSpec
from harness.spec.trial import Trial

STEPS = 10  # of the trajectory: beyond this, rounding errors grow about as fast as training proceeds


def command_ladder(
    trial: Trial,
    implementation: Callable[..., Any],
    train: Split,
    watched: Callable[[Impl], Impl] = lambda impl: impl,
    conventions: Conventions | None = None,
) -> Ladder:
    """The ladder of `capsbench parity`. `watched` gets every implementation that is made.

    Raises what `implementation`, a class or a factory, raises when it is called.
    """

    def make(model: ModelSpec, optim: OptimSpec | None = None, compile: bool = False) -> Impl:
        # a run times compiled code; other numbers of routing iterations take less time uncompiled
        runtime = trial.runtime_spec().model_copy(update={"compile": compile and trial.runtime.compile})
        return watched(implementation(model, optim or trial.train.optim, runtime))

    images, labels = repeated(np.asarray(train.images), train.labels)
    return Ladder(
        make(trial.model, None, True), trial.model, trial.train.optim, trial.runtime_spec(), images, labels,
        seed=trial.seed, steps=STEPS, batch=trial.train.batch, make=make, routing=range(1, 11),
        conventions=conventions,
    )  # fmt: skip


def gate_ladder(trial: Trial, impl: Impl, train: Split) -> Ladder:
    """The ladder of `capsbench run`, on what it times: `impl`, compiled, with `inputs.staged` images staged.

    Its trajectory starts in the middle of the trial's steps, at a round number: what happens every 100th step happens
    there. It is the same for every seed of a trial: see `harness.parity.cached`.
    """
    steps = trial.train.epochs * -(-len(train) // trial.train.batch)
    unit = next(unit for unit in (1_000, 100, 10, 1) if steps >= unit)
    amid = max(1, round(steps / 2 / unit)) * unit
    return Ladder(
        impl,
        trial.model,
        trial.train.optim,
        trial.runtime_spec(),
        np.asarray(train.images),
        train.labels,
        steps=trial.parity.steps,
        batch=trial.train.batch,
        is_staged=True,
        first_step=amid - 1,
    )
