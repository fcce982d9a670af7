"""The least memory that a training step needs, and the largest batch that fits."""

from __future__ import annotations

from harness import models
from harness.cost.operations import activations
from harness.spec import ModelSpec
from harness.weights import parameter_count

_PROCESS_BYTES = 400e6  # interpreter, framework and compiled code, before the first array


def least_bytes(model: ModelSpec, batch: int, item_bytes: int = 4) -> int:
    """A lower bound on the memory of a training step with `batch` images, for any implementation.

    It counts weights, gradients and Adam's two moments; the activations kept for the backward pass, and their
    gradients. It does not count temporary arrays or the framework.
    """
    return item_bytes * (4 * parameter_count(model) + 2 * batch * activations(model))


def step_bytes(model: ModelSpec, batch: int, item_bytes: int = 4) -> int:
    """Expected peak memory of a process that trains with `batch` images; right within a factor of about two.

    `least_bytes`, 400 MB of process and framework, and what the kind of model adds: see `ModelKind.scratch_values`.
    """
    scratch = models.of(model).scratch_values(model, batch)
    return round(_PROCESS_BYTES) + least_bytes(model, batch, item_bytes) + item_bytes * scratch


def largest_batch(model: ModelSpec, memory_bytes: float, item_bytes: int = 4) -> int:
    """The largest batch whose `step_bytes` is at most `memory_bytes`, in steps of 8 from 8 on; 0 if none is."""
    fixed = step_bytes(model, 0, item_bytes)
    batch = max(0, int((memory_bytes - fixed) // (step_bytes(model, 1, item_bytes) - fixed)))
    return batch - batch % 8 if batch >= 8 else batch
