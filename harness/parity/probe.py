"""Where implementations are compared: weights and optimiser states at which faults show, and Adam's rule itself."""

from __future__ import annotations

import zlib

import numpy as np

from harness.spec import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ModelSpec, Moments, OptimSpec, Weights
from harness.weights import initial_weights, parameter_count

SMALL_MODEL = 1_000_000  # parameters
_CAPSULES = 1152  # of the paper's model


def image_count(model: ModelSpec, batch: int) -> int:
    """How many images are compared: 7, for a large model 4, since the specification is slow; at most `batch`."""
    return min(7 if parameter_count(model) < SMALL_MODEL else 4, batch)


def probe_weights(model: ModelSpec, seed: int) -> Weights:
    """Weights at which faults show: at the initial ones, biases are zero and routing has next to nothing to decide.

    Initial weights, every bias drawn; of a CapsNet, DigitCaps ten times as large, so that the coupling coefficients differ.
    With more primary capsules than a 28x28 image has, less: or all lengths come so near to one that rounding picks the longest.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(b"probe")]))
    weights = initial_weights(model, seed)
    if model.kind == "capsnet":
        weights["digit.w"] *= 10 * min(1.0, _CAPSULES / model.primary_capsules)
    for name, w in weights.items():
        if name.endswith(".b"):
            w += 0.1 * generator.standard_normal(w.shape).astype(w.dtype)
    return weights


def probe_moments(weights: Weights, step: int) -> Moments:
    """Adam's state after `step` steps of gradients of about 0.01."""
    generator = np.random.Generator(np.random.Philox(key=[step, zlib.crc32(b"moments")]))
    first = {name: (0.01 * generator.standard_normal(w.shape)).astype(w.dtype) for name, w in weights.items()}
    second = {name: (1e-4 * generator.uniform(0.5, 2, w.shape)).astype(w.dtype) for name, w in weights.items()}
    return Moments(step, first, second)


def adam_update(moments: Moments, name: str, optim: OptimSpec) -> np.ndarray:
    """How Adam moves weight `name` at step `moments.step`, given its moments after that step (Algorithm 1)."""
    first = moments.first[name].astype(np.float64) / (1 - ADAM_BETA1**moments.step)
    second = moments.second[name].astype(np.float64) / (1 - ADAM_BETA2**moments.step)
    lr = optim.lr_at(moments.step - 1) * optim.lr_scale(name)
    return -lr * first / (np.sqrt(second) + ADAM_EPSILON)
