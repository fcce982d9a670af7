"""A worker's expected memory, before one has been measured."""

from __future__ import annotations

from harness import models
from harness.spec import ModelSpec
from harness.weights import parameter_count

_FRAMEWORK = 600e6  # an interpreter with a framework, and the operands of its matrix product
_COPIES = 10  # of votes and activations: with their gradients, transposes and copies for the backward pass


def expected_bytes(model: ModelSpec, batch: int) -> float:
    """Resident memory of a worker that trains `model`, overestimated rather than underestimated."""
    live = models.of(model).live_values(model)
    return _FRAMEWORK + 4 * (8 * parameter_count(model) + _COPIES * batch * live)
