"""capsbench: equivalent capsule networks in PyTorch, TensorFlow and JAX, proven equal, then timed.

The public API. To write an implementation, see what it is given and must return (`Impl`, `ModelSpec`, `weight_table` ...).
To add a kind of model, see what it is made of (`ModelKind`, `Layer`, `WeightRow`). To work with results, open a run:

    run = capsbench.open_run("runs/quickstart")
    run.trials  # a pandas data frame; so are run.epochs and run.parity
    run.weights("3fa1")["conv1.w"]

No framework is imported, and each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsbench.runs import Run, open_run
    from harness import __version__
    from harness.errors import UserError
    from harness.models.base import Layer, ModelKind
    from harness.spec import (
        ADAM_BETA1,
        ADAM_BETA2,
        ADAM_EPSILON,
        MARGIN_LAMBDA,
        MARGIN_MINUS,
        MARGIN_PLUS,
        RECONSTRUCTION_WEIGHT,
        SQUASH_EPSILON,
        Count,
        Cut,
        DecoderOptim,
        EpochPlan,
        EvalTotals,
        Impl,
        Loss,
        LrDecay,
        ModelSpec,
        Moments,
        OptimSpec,
        Outputs,
        Positive,
        Profiled,
        Runtime,
        TimingWarning,
        TrainTotals,
        Truncated,
        Weights,
        batched,
        is_right,
    )
    from harness.spec.plans import plan_epoch
    from harness.weights import WeightRow, initial_weights, parameter_count, weight_table

__all__ = [
    "ADAM_BETA1",
    "ADAM_BETA2",
    "ADAM_EPSILON",
    "MARGIN_LAMBDA",
    "MARGIN_MINUS",
    "MARGIN_PLUS",
    "RECONSTRUCTION_WEIGHT",
    "SQUASH_EPSILON",
    "Count",
    "Cut",
    "DecoderOptim",
    "EpochPlan",
    "EvalTotals",
    "Impl",
    "Layer",
    "Loss",
    "LrDecay",
    "ModelKind",
    "ModelSpec",
    "Moments",
    "OptimSpec",
    "Outputs",
    "Positive",
    "Profiled",
    "Run",
    "Runtime",
    "TimingWarning",
    "TrainTotals",
    "Truncated",
    "UserError",
    "WeightRow",
    "Weights",
    "__version__",
    "batched",
    "initial_weights",
    "is_right",
    "open_run",
    "parameter_count",
    "plan_epoch",
    "weight_table",
]

_HOMES = {
    "Layer": "harness.models.base",
    "ModelKind": "harness.models.base",
    "Run": "capsbench.runs",
    "UserError": "harness.errors",
    "WeightRow": "harness.weights",
    "__version__": "harness",
    "initial_weights": "harness.weights",
    "open_run": "capsbench.runs",
    "parameter_count": "harness.weights",
    "plan_epoch": "harness.spec.plans",
    "weight_table": "harness.weights",
}
"""Which module a name comes from; the others are from `harness.spec`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, "harness.spec")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
