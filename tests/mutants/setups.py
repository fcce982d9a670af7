"""Ladders as the commands set them up: `capsbench parity`, and the gate of `capsbench run`, on what needs no download."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from harness import data
from harness.config import Trial
from harness.data import Dataset, Split
from harness.parity import Ladder, image_count
from harness.parity.command import _COMPACT, _trial
from harness.parity.worker import STEPS
from harness.request import suite_or_built_in
from harness.spec import Impl, ModelSpec
from harness.suite import Suite, load_suite
from harness.weights import initial_weights
from tests.mutants.catalogue import VARIANTS

QUICKSTART = Path(__file__).parents[2] / "suites" / "quickstart.yaml"
ONE_CORE = "resources.cpus=1"  # each mutant has a core to itself, and one thread


@cache
def command_suite(variant: str) -> Suite:
    return suite_or_built_in(None, _COMPACT, VARIANTS[variant])


def command_model(variant: str) -> ModelSpec:
    suite = command_suite(variant)
    return _of_variant(data.model(suite.data, suite.model), variant)


def command_trial(variant: str, framework: str, precision: str) -> Trial:
    """What `capsbench parity` checks without a suite."""
    return _trial(command_suite(variant), command_model(variant), framework, precision)


def gate_trial(variant: str, framework: str) -> Trial:
    """What `capsbench run suites/quickstart.yaml` trains."""
    overrides = (f"impl={framework}", "resources.gpus=0", ONE_CORE, *VARIANTS[variant])
    (trial,) = load_suite(QUICKSTART, overrides).trials(0, lambda _: {})
    return trial.model_copy(update={"model": _of_variant(trial.model, variant)})


def _of_variant(model: ModelSpec, variant: str) -> ModelSpec:
    return model.model_copy(update={"overlaid": 2}) if variant == "two digits" else model


def command_ladder(trial: Trial, implementation: type[Impl], dataset: Dataset, **hooks: Any) -> Ladder:
    """As `harness.parity.worker` builds it."""
    count = image_count(trial.model, trial.train.batch)

    def make(model: ModelSpec, compile: bool = False) -> Impl:
        runtime = trial.runtime_spec().model_copy(update={"compile": compile and trial.runtime.compile})
        return implementation(model, trial.train.optim, runtime)

    return Ladder(
        make(trial.model, compile=True), trial.model, trial.train.optim, trial.runtime_spec(),
        dataset.train.images[:count], dataset.train.labels[:count],
        seed=trial.seed, steps=STEPS, make=make, routing=range(1, 11), **hooks,
    )  # fmt: skip


def built(trial: Trial, implementation: type[Impl], dataset: Dataset) -> Impl:
    """Loaded, staged and compiled, as `harness.trial` has it at its gate."""
    impl = implementation(trial.model, trial.train.optim, trial.runtime_spec())
    impl.load(initial_weights(trial.model, trial.seed))
    impl.stage(dataset.train.images, dataset.train.labels)
    impl.compile(trial.train.batch)
    return impl


def gate_ladder(trial: Trial, impl: Impl, train: Split) -> Ladder:
    """As `harness.trial` builds it."""
    count = image_count(trial.model, trial.train.batch)
    return Ladder(
        impl, trial.model, trial.train.optim, trial.runtime_spec(),
        train.images[:count], train.labels[:count],
        seed=trial.seed, steps=trial.parity.steps, batch=trial.train.batch,
    )  # fmt: skip
