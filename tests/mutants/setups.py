"""Ladders as set up by `capsbench parity` and by the gate of `capsbench run`, on data that need no download."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from harness import data
from harness.commands.common import suite_or_built_in
from harness.commands.parity import _COMPACT, _trial
from harness.data import Dataset
from harness.parity.inputs import staged
from harness.parity.setups import command_ladder, gate_ladder
from harness.spec import Impl, ModelSpec
from harness.spec.trial import Trial
from harness.suite.suite import Suite, load_suite
from harness.weights import initial_weights
from tests.mutants.catalogue import VARIANTS

__all__ = ["built", "command_ladder", "command_trial", "gate_ladder", "gate_trial"]

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


def built(trial: Trial, implementation: type[Impl], dataset: Dataset) -> Impl:
    """Loaded, staged and compiled, as `harness.worker.training` has it at its gate."""
    impl = implementation(trial.model, trial.train.optim, trial.runtime_spec())
    impl.load(initial_weights(trial.model, trial.seed))
    impl.stage(*staged(trial.model, dataset.train.images, dataset.train.labels))
    impl.compile(trial.train.batch)
    return impl
