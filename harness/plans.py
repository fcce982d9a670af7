"""Epoch plans: the order of the images and their shifts, drawn once in NumPy for every framework."""

from __future__ import annotations

import hashlib

import numpy as np

from harness.spec import EpochPlan

_STREAM = 0x706C616E  # "plan": keeps these draws apart from those of the weights


def plan_epoch(seed: int, epoch: int, examples: int, batch: int, shift: int) -> EpochPlan:
    """The plan of one epoch (1, 2, ...): all `examples` once, in random order, each shifted by up to `shift` pixels each way.

    It depends on its arguments only, so an epoch resumed in another process is the same epoch.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, (_STREAM << 32) | epoch]))
    order = generator.permutation(examples).astype(np.int32)
    shifts = generator.integers(-shift, shift, size=(examples, 2), endpoint=True).astype(np.int8)
    return EpochPlan(order, shifts, batch)


def plan_digest(plan: EpochPlan) -> str:
    """SHA-256 of the plan's order, shifts and batch size."""
    sha = hashlib.sha256(f"{plan.batch} {len(plan.order)}".encode())
    sha.update(plan.order.astype("<i4").tobytes())
    sha.update(plan.shifts.astype("i1").tobytes())
    return sha.hexdigest()
