"""The epsilons of a model's layers, found by feeding the layers with the specification's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from harness.parity.diagnosis.variant import LENGTH_EPSILONS, SQUASH_EPSILONS
from harness.parity.diagnosis.variant_layers import length, squash
from harness.parity.ordinary.examined import Examined
from harness.parity.ordinary.found import relative
from harness.parity.ordinary.layers import Values, fed_with, iterations, replacement, seen
from harness.parity.tolerances import bound
from harness.spec.conventions import Conventions, Epsilon

_CLOSER = 1e-2  # of a layer's error: how much closer to the specification a fitted epsilon must bring it


def conventions(examined: Examined, expected: Values, images: np.ndarray) -> Conventions:
    """The conventions that explain a layer that differs; the specification's if none differs."""
    own, default = seen(examined, images), Conventions()
    squashes = ("capsules", *(f"capsules {number}" for number in range(1, iterations(expected) + 1)))

    def fitted(layers: Iterable[str], options: Iterable[Epsilon], otherwise: Epsilon) -> Epsilon:
        numbers = [each for each in options if each.value]
        found = (_fitted(examined, layer, expected, images, numbers) for layer in layers if layer in own)
        return next((each for each in found if each is not None), otherwise)

    return Conventions(
        fitted(squashes, SQUASH_EPSILONS, default.squash_epsilon),
        fitted(("lengths",), LENGTH_EPSILONS, default.length_epsilon),
    )


def _fitted(
    examined: Examined, layer: str, expected: Values, images: np.ndarray, options: Sequence[Epsilon]
) -> Epsilon | None:
    """The epsilon that reproduces the model's output on the specification's input, if the specification's does not."""
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
