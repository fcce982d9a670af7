"""The linear classifier in the specification: see `impls.architecture.Specification`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from capsbench import Loss, ModelSpec
from impls.numpy import layers as F


@dataclass(frozen=True)
class Activations:
    """What `backward` needs: the flattened pixels (B, n), the logits (B, J), and the precision's operand."""

    x: Any
    logits: Any
    operand: Any


def forward(model: ModelSpec, w: Any, digits: Any, operand: Any = F.exact) -> Activations:
    x = F.overlay(digits)
    x = array_namespace(x).reshape(x, (x.shape[0], -1))
    return Activations(x, operand(x) @ w["fc1.w"] / model.temperature + w["fc1.b"], operand)


def scores(model: ModelSpec, acts: Activations) -> Any:
    return F.softmax(acts.logits)


def outputs(model: ModelSpec, w: Any, acts: Activations) -> tuple[Any, ...]:
    return None, scores(model, acts), None, None


def mean_losses(model: ModelSpec, w: Any, acts: Activations, labels: Any, mask: Any) -> Any:
    xp = array_namespace(acts.logits)
    above = acts.logits - xp.max(acts.logits, axis=1, keepdims=True)
    each = xp.log(xp.sum(xp.exp(above), axis=1)) - xp.sum(F.present(labels, above) * above, axis=1)
    return xp.stack([xp.mean(each)])


def losses(model: ModelSpec, w: Any, acts: Activations, labels: Any, mask: Any) -> Loss:
    return Loss(float(mean_losses(model, w, acts, labels, mask)[0]))


def backward(model: ModelSpec, w: Any, acts: Activations, labels: Any) -> Any:
    xp = array_namespace(acts.logits)
    grad = (scores(model, acts) - F.present(labels, acts.logits)) / acts.logits.shape[0]
    weights = acts.operand(acts.x).T @ acts.operand(grad) / model.temperature
    return {"fc1.w": weights, "fc1.b": xp.sum(grad, axis=0)}
