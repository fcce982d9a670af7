"""Tools with which kinds of model make their probes: the specification, and changes that preserve a network's function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from harness import registry
from harness.spec import OptimSpec, Runtime, Weights
from harness.spec.model import ModelSpec

_STEEP = 2.0**10  # a power of two changes no digit


def specification(model: ModelSpec, weights: Weights) -> Any:
    """The specification in float64, with these weights."""
    net: Any = registry.specification()(model, OptimSpec(), Runtime(precision="fp64"))
    net.load(weights)
    return net


def turned(model: ModelSpec, weights: Weights, images: np.ndarray, axes: Mapping[str, int]) -> Weights:
    """`weights` with the classes rotated so that the last one wins for the first of `images`.

    `axes`: see `ModelKind.class_axes`.
    """
    scores = specification(model, weights).forward(images[:1]).lengths
    by = model.classes - 1 - int(np.argmax(scores[0]))
    return weights | {name: np.roll(weights[name], by, axis) for name, axis in axes.items()}


def steep(weights: Weights, pairs: Iterable[tuple[str, str]]) -> Weights:
    """The same function: the input of every other layer is a thousand times larger, and its weights that much smaller.

    The ReLU between the layers of a pair commutes with this. The second layer's gradient becomes a thousand times
    larger, the first layer's that much smaller.
    """
    changed = dict(weights)
    for first, second in pairs:
        if f"{first}.w" in weights and f"{second}.w" in weights:
            for part in ("w", "b"):
                changed[f"{first}.{part}"] = weights[f"{first}.{part}"] * np.float32(_STEEP)
            changed[f"{second}.w"] = weights[f"{second}.w"] / np.float32(_STEEP)
    return changed
