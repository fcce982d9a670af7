"""The types that optax does not publish, for weights as `impls/jax` has them: dictionaries under canonical names."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

Params = dict[str, Array]
Updates = dict[str, Array]

class ScaleByAdamState(NamedTuple):
    count: Array
    mu: Updates
    nu: Updates

class GradientTransformation(NamedTuple):
    init: Callable[[Params], ScaleByAdamState]
    update: Callable[[Updates, ScaleByAdamState, Params], tuple[Updates, ScaleByAdamState]]

def apply_updates(params: Params, updates: Updates) -> Params: ...
def sigmoid_binary_cross_entropy(logits: Array, labels: Array) -> Array: ...
def softmax_cross_entropy_with_integer_labels(logits: Array, labels: Array) -> Array: ...
def __getattr__(name: str) -> Any: ...
