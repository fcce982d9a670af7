"""Where implementations are compared: weights and optimiser states that reveal faults, and Adam's rule itself."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from harness import models
from harness.models.base import ProbeStart
from harness.spec import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ModelSpec, Moments, OptimSpec, Weights
from harness.weights import initial_weights

EXAMPLES = 8  # different images in a step, at most
_CLOSE = 2.0e-4  # half of half precision's resolution, and many times float32's
_FITTED = 6  # images that probes are fitted to


def image_count(batch: int) -> int:
    """How many different images a step of `batch` has: a number whose multiples fill it, if possible."""
    fitting = max(count for count in range(1, min(EXAMPLES, batch) + 1) if batch % count == 0)
    return fitting if 2 * fitting >= min(EXAMPLES, batch) else min(EXAMPLES, batch)


def probes(model: ModelSpec, seed: int, images: np.ndarray, favoured: int) -> dict[str, Weights]:
    """Weights by the name of the probe, the first of them `decided`; `images` are those to be compared.

    `decided`: all decisions are clear. `graded`: class `favoured` may win for every image: if it is the label of a
    batch's padding, the padding would be counted. Earlier layers are multiplied and divided by a thousand, in turns,
    which leaves the function unchanged and makes some gradients a thousand times larger and others a thousand times
    smaller. `initial`: the start of training, with ReLUs whose input is exactly zero. For further probes see
    `ModelKind.probes` of the model's kind.
    """
    initial = initial_weights(model, seed)
    decided = probe_weights(model, seed, initial)
    return models.of(model).probes(model, ProbeStart(initial, decided, images[-_FITTED:], favoured))


def close_weights(probes: dict[str, Weights], axes: Mapping[str, int]) -> Weights:
    """Weights at which the classes form pairs that are closer together than half precision can tell apart.

    `axes`: see `ModelKind.class_axes`. The earlier layers are those of `graded`: whatever depends on the weights must
    be recomputed.
    """
    even, weights = probes.get("even", probes["decided"]), dict(probes["graded"])
    for name, axis in axes.items():
        w = np.moveaxis(even[name].copy(), axis, 0)
        pairs = len(w) // 2
        factors = np.where(np.arange(pairs) % 2, 1 + _CLOSE, 1 - _CLOSE).astype(np.float32)
        w[1 : 2 * pairs : 2] = w[0 : 2 * pairs : 2] * factors.reshape(-1, *[1] * (w.ndim - 1))
        weights[name] = np.moveaxis(w, 0, axis)
    return {name: np.ascontiguousarray(w) for name, w in weights.items()}


def probe_weights(model: ModelSpec, seed: int, initial: Weights | None = None) -> Weights:
    """Weights that reveal faults: in the initial ones, biases are zero and there may be almost nothing to decide.

    They are the initial weights with `ModelKind.emphasis` and random biases.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(b"probe")]))
    weights = {name: w.copy() for name, w in (initial or initial_weights(model, seed)).items()}
    for name, factor in models.of(model).emphasis(model).items():
        weights[name] *= factor
    for name, w in weights.items():
        if name.endswith(".b"):
            w += 0.1 * generator.standard_normal(w.shape).astype(w.dtype)
    return weights


def probe_moments(weights: Weights, step: int) -> Moments:
    """Adam's state after `step` steps of gradients of about 1e-5: so small that even a small gradient shows beside it."""
    generator = np.random.Generator(np.random.Philox(key=[step, zlib.crc32(b"moments")]))

    def drawn(low: float, high: float) -> Weights:
        span, least = np.float32(high - low), np.float32(low)
        return {name: generator.random(w.shape, np.float32) * span + least for name, w in weights.items()}

    return Moments(step, drawn(-2e-5, 2e-5), drawn(0.5e-10, 2e-10))


def adam_update(moments: Moments, name: str, optim: OptimSpec) -> np.ndarray:
    """How Adam moves weight `name` at step `moments.step`, given its moments after that step (Algorithm 1)."""
    first = moments.first[name].astype(np.float64) / (1 - ADAM_BETA1**moments.step)
    second = moments.second[name].astype(np.float64) / (1 - ADAM_BETA2**moments.step)
    lr = optim.lr_at(moments.step - 1) * optim.lr_scale(name)
    return -lr * first / (np.sqrt(second) + ADAM_EPSILON)
