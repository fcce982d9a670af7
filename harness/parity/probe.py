"""Where implementations are compared: weights and optimiser states at which faults show, and Adam's rule itself."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from typing import Any

import numpy as np

from harness import registry
from harness.spec import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, ModelSpec, Moments, OptimSpec, Runtime, Weights
from harness.weights import initial_weights

EXAMPLES = 8  # different images in a step, at most
_CAPSULES = 1152  # of the paper's model
_STEEP = 2.0**10  # a power of two changes no digit
_SHARP = 20.0
_SHORT = 2.0**-10
_CLOSE = 2.0e-4  # half of what half precision tells apart, and many times what float32 does
_FITTED, _ROUNDS = 6, 3  # images and rounds of fitting lengths: routing follows what is fitted


def image_count(batch: int) -> int:
    """How many different images a step of `batch` has: so many that they fill it when repeated, if that is possible."""
    fitting = max(count for count in range(1, min(EXAMPLES, batch) + 1) if batch % count == 0)
    return fitting if 2 * fitting >= min(EXAMPLES, batch) else min(EXAMPLES, batch)


def probes(model: ModelSpec, seed: int, images: np.ndarray, favoured: int) -> dict[str, Weights]:
    """Weights by the name of the probe, the first of them `decided`; `images` are those to be compared.

    `decided`: routing decides strongly, and all lengths are near one. `even`: all classes' capsules are about as long, so
    that each image has a winner of its own, and the last class wins too. `graded`: lengths of the classes from below m- to
    above m+ (Eq. 4), so that every branch of the margin loss is taken, class `favoured` the longest, whatever the image: if
    it is the label of what fills up a batch, that would be counted. The layers before are multiplied and divided by a
    thousand, in turns, which leaves the function as it is and makes some gradients a thousand times larger and others a
    thousand times smaller; the decoder's last layer is as if it were trained, with pixels near 0 and near 1.
    `short`: next to nothing in the primary capsules. `initial`: as training starts, with ReLUs whose input is exactly zero.
    Of a CNN, which has no lengths, there are fewer.
    """
    initial = initial_weights(model, seed)
    decided = probe_weights(model, seed, initial)
    if model.kind != "capsnet":
        decided = _turned(model, decided, images[-_FITTED:])
        return {"decided": decided, "graded": _steep(decided), "initial": initial}
    rising = np.roll(np.linspace(0.03, 0.97, model.classes), favoured + 1)
    even, graded = _with_lengths(model, decided, images[-_FITTED:], np.full(model.classes, 0.5), rising)
    even = _turned(model, even, images[-_FITTED:])
    short = {name: w * np.float32(_SHORT) if name.startswith("primary") else w for name, w in even.items()}
    sharp = {name: w * np.float32(_SHARP) if name == "dec3.w" else w for name, w in graded.items()}
    return {"decided": decided, "even": even, "graded": _steep(sharp), "short": short, "initial": initial}


def close_weights(probes: dict[str, Weights]) -> Weights:
    """Weights at which classes are in pairs that are next to each other, nearer than half precision tells apart.

    The layers before are those of `graded`: what depends on the weights must be computed anew.
    """
    even, weights = probes.get("even", probes["decided"]), dict(probes["graded"])
    for name, axis in class_axes(weights).items():
        w = np.moveaxis(even[name].copy(), axis, 0)
        pairs = len(w) // 2
        factors = np.where(np.arange(pairs) % 2, 1 + _CLOSE, 1 - _CLOSE).astype(np.float32)
        w[1 : 2 * pairs : 2] = w[0 : 2 * pairs : 2] * factors.reshape(-1, *[1] * (w.ndim - 1))
        weights[name] = np.moveaxis(w, 0, axis)
    return {name: np.ascontiguousarray(w) for name, w in weights.items()}


def _turned(model: ModelSpec, weights: Weights, images: np.ndarray) -> Weights:
    """`weights` with the classes turned so that the last one wins where the first of `images` has its winner."""
    specification: Any = registry.specification()(model, OptimSpec(), Runtime(precision="fp64"))
    specification.load(weights)
    outputs = specification.forward(images[:1])
    scores = outputs.lengths if model.kind == "capsnet" else outputs.probabilities
    by = model.classes - 1 - int(np.argmax(scores[0]))
    return weights | {name: np.roll(weights[name], by, axis) for name, axis in class_axes(weights).items()}


def class_axes(weights: Weights) -> dict[str, int]:
    """The weights of the layer that tells the classes apart, and which of their axes counts the classes."""
    last = "digit" if "digit.w" in weights else max(name for name in weights if name.startswith("fc"))[:-2]
    return {
        name: 1 if name == "digit.w" else 0 if name == "digit.b" else -1
        for name in weights
        if name.startswith(f"{last}.")
    }


def probe_weights(model: ModelSpec, seed: int, initial: Weights | None = None) -> Weights:
    """Weights at which faults show: at the initial ones, biases are zero and routing has next to nothing to decide.

    Initial weights, every bias drawn; of a CapsNet, DigitCaps ten times as large, so that the coupling coefficients differ.
    With more primary capsules than a 28x28 image has, less: or all lengths come so near to one that rounding picks the longest.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(b"probe")]))
    weights = {name: w.copy() for name, w in (initial or initial_weights(model, seed)).items()}
    if model.kind == "capsnet":
        weights["digit.w"] *= 10 * min(1.0, _CAPSULES / model.primary_capsules)
    for name, w in weights.items():
        if name.endswith(".b"):
            w += 0.1 * generator.standard_normal(w.shape).astype(w.dtype)
    return weights


def _with_lengths(model: ModelSpec, weights: Weights, images: np.ndarray, *lengths: np.ndarray) -> Generator[Weights]:
    """`weights` with each class's DigitCaps matrices scaled so that its capsules are about as long as in each of `lengths`."""
    specification: Any = registry.specification()(model, OptimSpec(), Runtime(precision="fp64"))
    specification.load(weights)
    u_hat: Any = specification._forward(images).u_hat
    for each in lengths:
        wanted = np.sqrt(each / (1 - each))  # |s|, of a squash to that length
        scale = np.ones(model.classes)
        for _ in range(_ROUNDS):
            bias = scale[:, None] * weights["digit.b"] if model.digit_bias else None
            _, s, _ = specification.net.F.route(scale[:, None, None] * u_hat, model.routing, bias)[-1]
            scale *= wanted / np.median(np.sqrt((s * s).sum(-1)), axis=0)
        factors = scale.astype(np.float32)
        own = {"digit.w": weights["digit.w"] * factors[:, None, None]}
        if model.digit_bias:
            own["digit.b"] = weights["digit.b"] * factors[:, None]
        yield weights | own


def _steep(weights: Weights) -> Weights:
    """The same function: what goes into every other layer is a thousand times larger, and its weights that much smaller.

    Between them is a ReLU, which does not mind. The layer's gradient is a thousand times larger, that of the one before
    smaller.
    """
    changed = dict(weights)
    pairs = [("conv1", "primary"), ("dec1", "dec2")] if "primary.w" in weights else [("conv1", "conv2"), ("fc1", "fc2")]
    for first, second in pairs:
        if f"{first}.w" in weights and f"{second}.w" in weights:
            for part in ("w", "b"):
                changed[f"{first}.{part}"] = weights[f"{first}.{part}"] * np.float32(_STEEP)
            changed[f"{second}.w"] = weights[f"{second}.w"] / np.float32(_STEEP)
    return changed


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
