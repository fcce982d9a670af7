"""The gate passes what is right and names what is wrong: each fault here trains happily."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from harness.parity import Verdict, gate, probe_weights, relative_error
from harness.spec import Loss, Moments, OptimSpec, Outputs, Runtime, Weights
from harness.weights import initial_weights
from impls.numpy import NumpyCapsNet
from impls.numpy import impl as numpy_impl
from impls.numpy import layers as F
from tests.impl_helpers import batch_of, small_model

MODEL = small_model(routing=3)
OPTIM = OptimSpec()


def verdict_on(implementation: type[NumpyCapsNet], steps: int = 2) -> Verdict:
    images, labels = batch_of(MODEL, 6)
    impl = implementation(MODEL, OPTIM, Runtime(precision="fp32"))
    weights = probe_weights(MODEL, 0)
    impl.load(weights)
    impl.stage(images, labels)
    impl.compile(8)
    return gate(impl, MODEL, OPTIM, "fp32", weights, images, labels, steps, batch=8)


def test_float32_specification_passes() -> None:
    verdict = verdict_on(NumpyCapsNet)
    assert verdict.ok
    assert 0 < verdict.max_rel_err < verdict.checks[verdict.worst].tolerance
    assert {name.partition(".")[0] for name in verdict.checks} == {
        "forward", "loss", "grad", "step", "first", "second", "update",
    }  # fmt: skip
    assert {name for name in verdict.checks if name.startswith("grad.")} == {
        f"grad.{w}" for w in initial_weights(MODEL, 0)
    }


def test_no_steps_no_trajectory() -> None:
    assert not any(name.startswith(("step", "update")) for name in verdict_on(NumpyCapsNet, steps=0).checks)


class NoGradientOfBias(NumpyCapsNet):
    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        loss, grads = super().loss_and_grads(images, labels)
        del grads["primary.b"]
        return loss, grads


class NotANumber(NumpyCapsNet):
    def loss_and_grads(self, images: np.ndarray, labels: np.ndarray) -> tuple[Loss, Weights]:
        loss, grads = super().loss_and_grads(images, labels)
        grads["digit.w"][0, 0, 0, 0] = math.nan
        return loss, grads


class TransposedCoupling(NumpyCapsNet):
    def forward(self, images: np.ndarray) -> Outputs:
        found = super().forward(images)
        return Outputs(found.digit, found.lengths, found.coupling.transpose(0, 2, 1), found.reconstruction)


class WrongLearningRate(NumpyCapsNet):
    """One per cent too large."""

    def __init__(self, model: Any, optim: OptimSpec, runtime: Runtime) -> None:
        super().__init__(model, OptimSpec(lr=optim.lr * 1.01), runtime)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (NoGradientOfBias, "grad.primary.b"),
        (NotANumber, "grad.digit.w"),
        (TransposedCoupling, "forward.coupling"),
        (WrongLearningRate, "update.conv1.w"),
    ],
)
def test_a_fault_is_named(fault: type[NumpyCapsNet], named: str) -> None:
    verdict = verdict_on(fault)
    assert not verdict.ok
    assert verdict.checks[named].ratio > 1


def test_softmax_over_the_inputs_is_found() -> None:
    """The best-known fault of public implementations, in the compared implementation alone."""
    right = F.softmax

    class SoftmaxOverInputs(NumpyCapsNet):
        def forward(self, images: np.ndarray) -> Outputs:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    F, "softmax", lambda b: right(b.transpose(0, 2, 1)).transpose(0, 2, 1) * b.shape[2] / b.shape[1]
                )
                return super().forward(images)

    verdict = verdict_on(SoftmaxOverInputs, steps=0)
    assert not verdict.ok
    assert verdict.checks["forward.coupling"].ratio > 1
    assert verdict.checks["grad.digit.w"].ratio <= 1


def test_keras_epsilon_hat_is_found() -> None:
    class EpsilonHat(NumpyCapsNet):
        """Epsilon beside the uncorrected second moment: no loss shows it, the update does."""

        def _step(self, grads: Weights) -> None:
            with pytest.MonkeyPatch.context() as patch:
                step = self.moments.step + 1
                patch.setattr(numpy_impl, "ADAM_EPSILON", 1e-7 / math.sqrt(1 - 0.999**step))
                super()._step(grads)

    verdict = verdict_on(EpsilonHat)
    assert not verdict.ok
    assert verdict.worst.startswith("update.")
    assert all(
        check.ratio <= 1 for name, check in verdict.checks.items() if name.startswith(("forward", "loss", "grad"))
    )


def test_forgotten_bias_correction_is_found() -> None:
    class NoCorrection(NumpyCapsNet):
        def _step(self, grads: Weights) -> None:
            step = self.moments.step
            self.moments = Moments(10**6, self.moments.first, self.moments.second)
            super()._step(grads)
            self.moments = Moments(step + 1, self.moments.first, self.moments.second)

    assert verdict_on(NoCorrection).worst.startswith("update.")


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.5], [0.0], 0.5),  # nothing to be relative to
        ([1.0], [[1.0]], math.inf),
        ([math.nan], [1.0], math.inf),
        ([math.inf], [math.inf], math.inf),
        (None, [1.0], math.inf),
        (None, None, 0),
    ],
)
def test_relative_error(found: Any, expected: Any, error: float) -> None:
    assert relative_error(found, expected) == pytest.approx(error)
