"""Epoch plans: the order of the images, their shifts and dropout masks, drawn once in NumPy for all frameworks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from harness.spec.impl import EpochPlan
from harness.spec.model import ModelSpec

if TYPE_CHECKING:
    from jaxtyping import Float, Int

_STREAM = 0x706C616E  # "plan": keeps these draws apart from those of the weights


def plan_epoch(
    seed: int,
    epoch: int,
    examples: int,
    batch: int,
    shift: int,
    model: ModelSpec | None = None,
    labels: Int[np.ndarray, " N"] | None = None,
) -> EpochPlan:
    """The plan of one epoch (1, 2, ...): all `examples` once, in random order, each shifted by up to `shift` pixels each way.

    With a `model` that has dropout, each image's units are kept or dropped, independently (N x 192 bytes at full size).
    If its images show several digits, each staged image is the first of them once; the others are drawn anew each epoch
    from all staged ones with other `labels`, and shifted independently. The plan depends only on its arguments, so an
    epoch resumed in another process is the same epoch. Raises `ValueError` if there are not enough different labels.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, (_STREAM << 32) | epoch]))
    order = generator.permutation(examples)
    if model is not None and model.several:
        assert labels is not None, "what is overlaid depends on the labels"
        order = overlays(labels[:examples], generator.random((examples, model.overlaid - 1)))[order]
    shifts = generator.integers(-shift, shift, size=(*order.shape, 2), endpoint=True).astype(np.int8)
    kept = None if model is None else kept_units(generator, model, examples)
    return EpochPlan(order.astype(np.int32), shifts, batch, kept)


def overlays(labels: Int[np.ndarray, " N"], draws: Float[np.ndarray, "N others"]) -> Int[np.ndarray, "N K"]:
    """For each of N images, its own index and those of K - 1 images to overlay, all of different classes (section 6).

    `draws`, from [0, 1), choose: every image of the remaining classes is equally likely. Raises `ValueError` if none is
    left.
    """
    by_class, counts = np.argsort(labels, kind="stable"), np.bincount(labels)
    starts = np.cumsum(counts) - counts
    chosen = np.arange(len(labels))[:, None]
    for draw in draws.T:
        taken = np.sort(labels[chosen], axis=1)  # in the order of `by_class`
        left = len(labels) - counts[taken].sum(1)
        if not left.all():
            raise ValueError(f"of {len(labels)} images, none is of another class than those to overlay it with")
        place = (draw * left).astype(np.int64)
        for label in taken.T:
            place += np.where(place >= starts[label], counts[label], 0)
        chosen = np.column_stack([chosen, by_class[place]])
    return chosen


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
