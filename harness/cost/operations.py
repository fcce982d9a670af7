"""What a trial should cost: operations and memory counted from the model, and time from earlier results."""

from __future__ import annotations

from harness import models
from harness.spec import ModelSpec
from harness.weights import parameter_count


def products(model: ModelSpec) -> dict[str, int]:
    """Multiplications, each with an addition, of one image's forward pass by layer; the first sees the image itself."""
    return models.of(model).products(model)


def activations(model: ModelSpec) -> int:
    """Numbers that a training step keeps of one image for its backward pass."""
    return models.of(model).activations(model)


def forward_flops(model: ModelSpec) -> int:
    """Floating-point operations of one image's forward pass; a multiply and an add count as two."""
    return 2 * sum(products(model).values())


def step_flops(model: ModelSpec, batch: int) -> int:
    """One training step: the backward pass costs twice the forward pass, but for the images, which need no gradient."""
    return batch * (3 * forward_flops(model) - 2 * next(iter(products(model).values())))


def moved_bytes(model: ModelSpec, batch: int) -> int:
    """Bytes of float32 that any algorithm for one training step moves, were it to keep everything else on the chip.

    The weights are read by both passes and by Adam, its moments read, all three written; their gradients are written and
    read. The activations are written, read by both passes, and so are their gradients, read once.
    """
    return 4 * (10 * parameter_count(model) + 5 * batch * activations(model))
