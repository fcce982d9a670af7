"""What a trial should cost: operations and memory counted from the model."""

from __future__ import annotations

from harness import models
from harness.spec import ModelSpec
from harness.weights import parameter_count


def products(model: ModelSpec) -> dict[str, int]:
    """Multiply-adds of one image's forward pass, by layer; the first layer sees the image itself."""
    return models.of(model).products(model)


def activations(model: ModelSpec) -> int:
    """Numbers that a training step keeps for one image's backward pass."""
    return models.of(model).activations(model)


def forward_flops(model: ModelSpec) -> int:
    """Floating-point operations of one image's forward pass; a multiply and an add count as two."""
    return 2 * sum(products(model).values())


def step_flops(model: ModelSpec, batch: int) -> int:
    """One training step: the backward pass costs twice the forward pass, except that the images need no gradient."""
    return batch * (3 * forward_flops(model) - 2 * next(iter(products(model).values())))


def moved_bytes(model: ModelSpec, batch: int) -> int:
    """Bytes of float32 that any algorithm for one training step must move, even if everything else stays on the chip.

    Both passes and Adam read the weights; Adam reads its moments and writes all three; the weights' gradients are
    written and read. The activations are written and read by both passes; their gradients are written and read once.
    """
    return 4 * (10 * parameter_count(model) + 5 * batch * activations(model))
