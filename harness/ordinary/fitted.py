"""The epsilons that a model's layers compute with, from layers that are fed with what the specification feeds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.conventions import Conventions, Epsilon
from harness.ordinary.examined import Examined
from harness.ordinary.found import relative
from harness.ordinary.layers import Values, fed_with, iterations, replacement, seen
from harness.parity.tolerances import bound
from harness.parity.variant import LENGTH_EPSILONS, SQUASH_EPSILONS
from harness.parity.variant_layers import length, squash

_CLOSER = 1e-2  # of its error: how near a layer has to come to the specification by its epsilon


def conventions(examined: Examined, expected: Values, images: np.ndarray) -> Conventions:
    """Those that explain a layer which differs; the specification's where none does."""
    found, own = Conventions(), seen(examined, images)
    layers = ("capsules", *(f"capsules {number}" for number in range(1, iterations(expected) + 1)))
    for key, names, options in (
        ("squash_epsilon", layers, SQUASH_EPSILONS), ("length_epsilon", ("lengths",), LENGTH_EPSILONS),
    ):  # fmt: skip
        for layer in (name for name in names if name in own):
            epsilon = _fitted(examined, layer, expected, images, [each for each in options if each.value])
            if epsilon is not None:
                found = replace(found, **{key: epsilon})
                break
    return found


def _fitted(
    examined: Examined, layer: str, expected: Values, images: np.ndarray, options: Sequence[Epsilon]
) -> Epsilon | None:
    """What makes of the specification's input what the model makes of it, if the specification's epsilon does not."""
    values = fed_with(examined, layer, expected)
    made = replacement(examined, values, len(images))
    if not made:
        return None
    given = seen(examined, images, made).get(layer)
    computed = _computed(layer, expected)
    if given is None or relative(given, computed(Epsilon())) <= bound("forward", "fp64"):
        return None
    errors = [relative(given, computed(each)) for each in options]
    best = int(np.argmin(errors))
    is_near = errors[best] <= min(bound("forward", "fp64"), _CLOSER * relative(given, computed(Epsilon())))
    return options[best] if is_near else None


def _computed(layer: str, expected: Values) -> Callable[[Epsilon], Any]:
    """The layer of the specification with another epsilon."""
    if layer == "lengths":
        v = expected[f"capsules {iterations(expected)}"]
        return lambda epsilon: length(v, epsilon)
    s = expected["primary"]
    if layer != "capsules":
        coupling = expected[layer.replace("capsules", "coupling")]
        s = np.einsum("bij,bije->bje", coupling, expected["votes"])
    return lambda epsilon: squash(s, "paper", "dimensions", epsilon)
