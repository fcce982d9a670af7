"""How much memory a worker should take, before one has been seen."""

from __future__ import annotations

import math

from harness.cost.operations import convolution_outputs
from harness.spec import ModelSpec
from harness.weights import parameter_count

_FRAMEWORK = 600e6  # an interpreter with a framework, and the operands of its matrix product
_COPIES = 10  # of votes and activations: with their gradients, transposes and what is kept for the backward pass


def expected_bytes(model: ModelSpec, batch: int) -> float:
    """Resident memory of a worker that trains `model`, rather too much than too little."""
    if model.kind == "cnn":
        return _FRAMEWORK + 4 * (8 * parameter_count(model) + _COPIES * batch * convolution_outputs(model))
    votes = model.primary_capsules * model.classes * model.digit_dim
    activations = math.prod(model.conv_grid) * model.conv_channels + votes
    return _FRAMEWORK + 4 * (8 * parameter_count(model) + _COPIES * batch * activations)
