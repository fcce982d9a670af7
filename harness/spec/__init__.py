"""The shared vocabulary: the model, the optimiser, a trial, plans, and the interface of an implementation (`Impl`).

Everything crosses this border as NumPy arrays. An implementation imports this package and nothing else of the bench.
The package imports only `harness.errors`. It defines what all kinds of model have in common and finds kinds by name
(`harness.models`). Source of the model: Sabour, Frosst, Hinton, *Dynamic Routing Between Capsules*, NIPS 2017 (arXiv
1710.09829v2), cited by section and equation.
"""

from harness.spec.conventions import SQUASH_EPSILON, Conventions, Epsilon
from harness.spec.impl import (
    MARGIN_LAMBDA,
    MARGIN_MINUS,
    MARGIN_PLUS,
    RECONSTRUCTION_WEIGHT,
    Cut,
    EpochPlan,
    EvalTotals,
    Impl,
    Loss,
    Moments,
    Outputs,
    Profiled,
    Runtime,
    TimingWarning,
    TrainTotals,
    Truncated,
    Weights,
    batched,
    is_right,
)
from harness.spec.kinds import part
from harness.spec.model import Count, ModelSpec, Positive, Section
from harness.spec.optim import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, DecoderOptim, LrDecay, OptimSpec

__all__ = [
    "ADAM_BETA1", "ADAM_BETA2", "ADAM_EPSILON", "MARGIN_LAMBDA", "MARGIN_MINUS", "MARGIN_PLUS", "RECONSTRUCTION_WEIGHT",
    "SQUASH_EPSILON", "Conventions", "Count", "Cut", "DecoderOptim", "EpochPlan", "Epsilon", "EvalTotals", "Impl", "Loss",
    "LrDecay", "ModelSpec", "Moments", "OptimSpec", "Outputs", "Positive", "Profiled", "Runtime", "Section",
    "TimingWarning", "TrainTotals", "Truncated", "Weights", "batched", "is_right", "part",
]  # fmt: skip
