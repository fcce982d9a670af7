"""Epoch plans: the order of the images, their shifts and dropout masks, drawn once in NumPy for every framework."""

from __future__ import annotations

import hashlib

import numpy as np

from harness.spec import EpochPlan, ModelSpec

_STREAM = 0x706C616E  # "plan": keeps these draws apart from those of the weights


def plan_epoch(
    seed: int, epoch: int, examples: int, batch: int, shift: int, model: ModelSpec | None = None
) -> EpochPlan:
    """The plan of one epoch (1, 2, ...): all `examples` once, in random order, each shifted by up to `shift` pixels each way.

    With a `model` that has dropout, each image's units are kept or dropped, independently (N x 192 bytes at full size).
    It depends on its arguments only, so an epoch resumed in another process is the same epoch.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, (_STREAM << 32) | epoch]))
    order = generator.permutation(examples).astype(np.int32)
    shifts = generator.integers(-shift, shift, size=(examples, 2), endpoint=True).astype(np.int8)
    return EpochPlan(order, shifts, batch, None if model is None else kept_units(generator, model, examples))


def kept_units(generator: np.random.Generator, model: ModelSpec, examples: int) -> np.ndarray | None:
    """Masks (N, U) uint8 for `EpochPlan.kept`; None for a model without dropout."""
    if not model.dropped_units:
        return None
    return (generator.random((examples, model.dropped_units), np.float32) >= model.dropout).astype(np.uint8)


def plan_digest(plan: EpochPlan) -> str:
    """SHA-256 of the plan's order, shifts, batch size, and dropout masks if there are any."""
    sha = hashlib.sha256(f"{plan.batch} {len(plan.order)}".encode())
    sha.update(plan.order.astype("<i4").tobytes())
    sha.update(plan.shifts.astype("i1").tobytes())
    if plan.kept is not None:
        sha.update(plan.kept.tobytes())
    return sha.hexdigest()
