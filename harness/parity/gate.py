"""The gate before the clock: one batch through an implementation and through the specification, tensor by tensor."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from harness import registry
from harness.spec import (
    ADAM_BETA1,
    ADAM_BETA2,
    ADAM_EPSILON,
    EpochPlan,
    Impl,
    ModelSpec,
    Moments,
    OptimSpec,
    Runtime,
    Weights,
)
from harness.weights import initial_weights

# Largest accepted relative error, by precision and kind of quantity. In float32, three frameworks gave at most 4e-6 forward,
# 2e-7 loss, 6e-5 gradients, 2e-7 losses of steps and 1.2e-4 updates (rounding of weights near 1) on the quickstart's model
# and the paper's; moments after 3 steps up to 5e-3, since Adam makes full steps of gradients that are nothing but rounding.
TOLERANCES = {
    "fp32": {"forward": 2e-5, "loss": 2e-6, "grad": 1e-3, "step": 2e-5, "first": 2e-2, "second": 2e-2, "update": 1e-3},
    "fp64": {"forward": 1e-9, "loss": 1e-9, "grad": 1e-8, "step": 1e-9, "first": 1e-8, "second": 1e-8, "update": 1e-6},
}


@dataclass(frozen=True)
class TensorCheck:
    """`rel_err` is inf where a value is missing, of the wrong shape, or not finite."""

    rel_err: float
    tolerance: float

    @property
    def ratio(self) -> float:
        return self.rel_err / self.tolerance


@dataclass(frozen=True)
class Verdict:
    """All comparisons of one implementation with the specification on one batch."""

    checks: dict[str, TensorCheck]
    examples: int
    steps: int

    @property
    def worst(self) -> str:
        """The quantity nearest to its tolerance, or farthest past it."""
        return max(self.checks, key=lambda name: self.checks[name].ratio)

    @property
    def max_rel_err(self) -> float:
        """The relative error of the worst quantity."""
        return self.checks[self.worst].rel_err

    @property
    def ok(self) -> bool:
        return all(check.ratio <= 1 for check in self.checks.values())


def relative_error(found: object, expected: object) -> float:
    """max |found - expected| / max |expected|; inf unless shapes agree and every value is finite."""
    if found is None or expected is None:
        return 0.0 if found is expected else math.inf
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return math.inf
    scale = float(np.abs(b).max(initial=0))
    error = float(np.abs(a - b).max(initial=0))
    return error / scale if scale else error


def _adam_update(moments: Moments, name: str, optim: OptimSpec) -> np.ndarray:
    """How Adam moves weight `name` at step `moments.step`, given its moments after that step (Algorithm 1)."""
    first = moments.first[name].astype(np.float64) / (1 - ADAM_BETA1**moments.step)
    second = moments.second[name].astype(np.float64) / (1 - ADAM_BETA2**moments.step)
    return -optim.lr_at(moments.step - 1) * first / (np.sqrt(second) + ADAM_EPSILON)


def probe_weights(model: ModelSpec, seed: int) -> Weights:
    """Weights at which faults show: at the initial ones, biases are zero and routing has next to nothing to decide.

    Initial weights, but DigitCaps ten times as large, so that the coupling coefficients differ, and every bias drawn.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(b"probe")]))
    weights = initial_weights(model, seed)
    weights["digit.w"] *= 10
    for name, w in weights.items():
        if name.endswith(".b"):
            w += 0.1 * generator.standard_normal(w.shape).astype(w.dtype)
    return weights


def gate(
    impl: Impl,
    model: ModelSpec,
    optim: OptimSpec,
    precision: str,
    weights: Weights,
    images: np.ndarray,
    labels: np.ndarray,
    steps: int,
    batch: int,
) -> Verdict:
    """Compares `impl` with the specification from `weights` on; leaves `impl` with other weights than it found.

    `images` uint8 (B, H, W, C) and `labels` (B,) must be the first B staged ones, and `impl` compiled for `batch`: forward
    outputs, losses and every gradient are compared first; then, on the same images, each loss of `steps` steps of the
    compiled training path, Adam's moments after them, and the last step of every weight.
    """
    tolerance = TOLERANCES[precision]
    reference: Impl = registry.load(registry.resolve("numpy"))(model, optim, Runtime(precision="fp64"))
    reference.load(weights)
    reference.stage(images, labels)
    impl.load(weights)
    checks: dict[str, TensorCheck] = {}

    def compare(kind: str, name: str, found: object, expected: object) -> None:
        checks[f"{kind}.{name}"] = TensorCheck(relative_error(found, expected), tolerance[kind])

    found_outputs, outputs = impl.forward(images), reference.forward(images)
    for name in ("digit", "lengths", "coupling", "reconstruction"):
        compare("forward", name, getattr(found_outputs, name), getattr(outputs, name))
    (found_loss, found_grads), (loss, grads) = (each.loss_and_grads(images, labels) for each in (impl, reference))
    for name in ("total", "margin", "reconstruction"):
        compare("loss", name, getattr(found_loss, name), getattr(loss, name))
    for name, grad in grads.items():
        compare("grad", name, found_grads.get(name), grad)

    count = len(labels)
    shifts = np.zeros((count, 2), np.int8)
    shifts[:, 0], shifts[:, 1] = np.arange(count) % 3 - 1, np.arange(count) % 5 - 2
    plan = EpochPlan(np.arange(count, dtype=np.int32), shifts, batch)
    for step in range(1, steps + 1):
        before = impl.dump() if step == steps else {}
        compare("step", f"{step}.loss", impl.train(plan).loss.total, reference.train(plan).loss.total)
        if step == steps:
            after, found, expected = impl.dump(), impl.dump_moments(), reference.dump_moments()
            for name in weights:
                compare("first", name, found.first.get(name), expected.first[name])
                compare("second", name, found.second.get(name), expected.second[name])
                # against Adam's rule on its own moments: weights whose gradient is rounding alone need not agree
                compare("update", name, after[name] - before[name], _adam_update(found, name, optim))
    return Verdict(checks, count, steps)
