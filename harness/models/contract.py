"""Whether a plug-in kind of model keeps the contract: checked for a model before the bench relies on it.

Built-in kinds have tests instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from harness import models, registry
from harness.errors import BrokenPlugin, UserError
from harness.models import probing
from harness.models.base import Layer, WeightRow
from harness.spec import Weights
from harness.spec.model import ModelSpec

_T = TypeVar("_T")


def require_tables(model: ModelSpec) -> None:
    """Raises `BrokenPlugin`, naming the kind, if its weights or layers break the contract."""
    if models.is_built_in(model.kind):
        return
    kind, what = models.of(model), f'model kind "{model.kind}"'
    rows: Any = _called(f"{what}: weights()", lambda: kind.weights(model))
    if not rows or not all(isinstance(row, WeightRow) for row in rows):
        raise BrokenPlugin(f"{what}: weights() returned {_short(rows)}; expected a tuple of WeightRow, at least one")
    for row in rows:
        if not row.name.endswith((".w", ".b")) or not all(isinstance(side, int) and side > 0 for side in row.shape):
            raise BrokenPlugin(
                f"{what}: weight {row.name} of shape {row.shape}; expected a name like layer.w or layer.b, and sides above 0"
            )
    found: Any = _called(f"{what}: layers()", lambda: kind.layers(model))
    if not found or not all(isinstance(layer, Layer) for layer in found):
        raise BrokenPlugin(f"{what}: layers() returned {_short(found)}; expected a list of Layer, at least one")


def require_sound(model: ModelSpec, weights: Weights, images: np.ndarray, labels: np.ndarray) -> None:
    """Raises `BrokenPlugin`, naming the kind, if its part for NumPy does not compute what its tables say, in their shapes."""
    require_tables(model)
    kind = models.of(model)
    part = kind.parts.get(registry.SPECIFICATION, "which is missing")
    what = f'model kind "{model.kind}": its part for {registry.SPECIFICATION}, {part},'
    net = probing.specification(model, weights)
    outputs: Any = _called(f"{what} forward", lambda: net.forward(images))
    for name, shape in kind.output_shapes(model, len(images)).items():
        found: Any = getattr(outputs, name)
        if (side := None if found is None else found.shape) != shape:
            raise BrokenPlugin(f"{what} gives {name} of shape {side}; its kind says {shape}")
    loss, grads = cast(
        "tuple[Any, Weights]", _called(f"{what} losses or backward", lambda: net.loss_and_grads(images, labels))
    )
    if absent := [term for term in model.loss_terms if getattr(loss, term, None) is None]:
        raise BrokenPlugin(f"{what} has no loss {', '.join(absent)}, which its loss_terms name")
    for row in kind.weights(model):
        if (side := getattr(grads.get(row.name), "shape", None)) != row.shape:
            raise BrokenPlugin(f"{what} gives a gradient of {row.name} of shape {side}; its kind says {row.shape}")


def _called(what: str, function: Callable[[], _T]) -> _T:
    try:
        return function()
    except UserError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split())[:300]
        raise BrokenPlugin(f"{what} failed: {type(error).__name__}: {cause}") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
