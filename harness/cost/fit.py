"""A written model of what a training step costs: counts from the architecture, machine constants from measured trials.

    seconds of a step  =  a * fixed part         1, where dispatch rules; or the weights' bytes, where the optimiser does
                       +  b * operations         of matrix products: both convolutions, votes, decoder, forward and backward
                       +  c * bytes of votes     made once, and their gradient
                       +  d * bytes of votes * (2 r - 1)     read once by each sum and agreement of the r iterations

The four constants are nonnegative, and are fitted to one implementation in one precision on one machine by least
squares of the relative errors. The fixed part has two possible kinds, and the primary convolution's operations are
those of the direct sum or of the frequency domain (`impls.spectral`). Of these four forms, the one that best predicts
left-out trials is chosen. `leave_one_out` tells how good the model is: each trial is predicted by a model, form included,
fitted to the others.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from harness import models
from harness.cost.operations import products
from harness.models.capsnet import spectral_products
from harness.spec import ModelSpec
from harness.weights import parameter_count

Fixed = Literal["step", "weights"]
Algorithm = Literal["direct", "spectral"]
_Form = tuple[Fixed, Algorithm]
_FORMS: tuple[_Form, ...] = (("step", "direct"), ("step", "spectral"), ("weights", "direct"), ("weights", "spectral"))

FEWEST = 6
"""The fewest trials for which fitting four constants is meaningful."""

TERMS = ("fixed", "products", "votes", "routing")
"""Names of the constants a to d, in seconds (or seconds per byte), seconds per operation, and seconds per byte."""

_ITEM_BYTES = 4


@dataclass(frozen=True)
class TimedTrial:
    """One measured point: a model trained in batches of `batch` images takes `step_s` seconds a step."""

    model: ModelSpec
    batch: int
    step_s: float


@dataclass(frozen=True)
class CostModel:
    """Fitted constants, in the order of `TERMS`, and the error of each trial if predicted from all others."""

    fixed: Fixed
    algorithm: Algorithm
    constants: tuple[float, ...]
    residuals: tuple[float, ...]  # modelled / measured - 1, in the order of the trials
    leave_one_out: tuple[float, ...]  # predicted / measured - 1, each trial from the others

    def step_s(self, model: ModelSpec, batch: int) -> float:
        """Predicted seconds of one training step."""
        return float(counts(model, batch, self.fixed, self.algorithm) @ np.array(self.constants))

    def shares(self, model: ModelSpec, batch: int) -> dict[str, float]:
        """Seconds of one training step by term."""
        parts = counts(model, batch, self.fixed, self.algorithm) * np.array(self.constants)
        return dict(zip(TERMS, map(float, parts), strict=True))

    @property
    def worst(self) -> float:
        """The largest relative error of a trial predicted from the others."""
        return max(map(abs, self.leave_one_out))


def sentence(name: str, setting: str, of: TimedTrial, model: CostModel) -> str:
    """The terms of a step of the trial `of`, described by `setting`, and how well the model of `name` predicts."""
    shares = model.shares(of.model, of.batch)
    parts = ", ".join(f"{term} {1e3 * seconds:.0f} ms" for term, seconds in shares.items() if seconds)
    return (
        f"{name}: a step of {of.batch} images ({setting or 'the only setting'}) is {parts}; "
        f"the model fits all trials within {100 * max(map(abs, model.residuals)):.1f}%; "
        f"trials predicted from the others are off by at most {100 * model.worst:.1f}% "
        f"(fixed part by {model.fixed}, primary convolution counted as {model.algorithm})"
    )


def counts(model: ModelSpec, batch: int, fixed: Fixed, algorithm: Algorithm) -> np.ndarray:
    """The factors of the constants, in the order of `TERMS`."""
    votes = batch * model.primary_capsules * model.classes * model.digit_dim * _ITEM_BYTES
    once = 1.0 if fixed == "step" else parameter_count(model) * _ITEM_BYTES
    return np.array([once, _operations(model, batch, algorithm), votes, votes * (2 * model.routing - 1)], float)


def _operations(model: ModelSpec, batch: int, algorithm: Algorithm) -> int:
    """Operations of one step's matrix products; the backward pass has two for each, except the gradient for the images."""
    layers = products(model)
    once = 0
    if algorithm == "spectral":
        frequencies, taps = spectral_products(model), (-(-model.kernel // 2)) ** 2
        channels, filters = 4 * model.conv_channels, model.primary_types * model.primary_dim
        rows, columns = model.primary_grid
        grid = math.prod(side + math.isqrt(taps) - 1 for side in model.primary_grid)
        transforms = frequencies * (grid * channels + rows * columns * filters)
        layers = {**layers, "primary": frequencies * channels * filters + transforms}
        once = frequencies * taps * channels * filters  # the kernel's transform, whatever the batch
    forward = sum(count for name, count in layers.items() if name != "routing")
    return 2 * (batch * (3 * forward - layers["conv1"]) + 3 * once)


def fit(trials: Sequence[TimedTrial]) -> CostModel | None:
    """The best of the four forms; None for fewer than `FEWEST` trials, which prove nothing, or for other than CapsNets."""
    if len(trials) < FEWEST or not all(models.of(trial.model).has_capsules for trial in trials):
        return None
    everything = np.arange(len(trials))
    counted = {form: np.array([counts(trial.model, trial.batch, *form) for trial in trials]) for form in _FORMS}
    measured = np.array([trial.step_s for trial in trials])

    def errors(form: _Form, known: np.ndarray) -> np.ndarray:
        """The relative error of each of `known`, predicted from the others."""
        found = [
            counted[form][index] @ _solve(counted[form][others], measured[others]) / measured[index] - 1
            for index in known
            for others in [known[known != index]]
        ]
        return np.array(found)

    def best(known: np.ndarray) -> _Form:
        return min(_FORMS, key=lambda form: float(np.square(errors(form, known)).sum()))

    def predicted(index: int) -> float:
        """Predicted from the others, relative to the measured value."""
        others = everything[everything != index]
        form = best(others)
        return float(counted[form][index] @ _solve(counted[form][others], measured[others]) / measured[index])

    form = best(everything)
    constants = _solve(counted[form], measured)
    residuals = counted[form] @ constants / measured - 1
    left_out = tuple(predicted(index) - 1 for index in range(len(trials)))
    return CostModel(*form, tuple(map(float, constants)), tuple(map(float, residuals)), left_out)


def _solve(counted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The nonnegative constants with the least sum of squared relative errors."""
    optimize: Any = importlib.import_module("scipy.optimize")  # not at the top, where it would slow down every command
    relative = counted / measured[:, None]
    scale = np.abs(relative).max(axis=0)
    solution, _ = optimize.nnls(relative / scale, np.ones(len(measured)))
    return np.asarray(solution) / scale
