"""What an implementation gives at the levels of the ladder: named values, one after the other as they are computed.

The same for everyone: the implementation, the specification, its float32 twin, and the specification with a fault in it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from harness.parity.probe import adam_update, probe_moments
from harness.plans import kept_units, overlays
from harness.spec import EpochPlan, Impl, ModelSpec, Moments, OptimSpec, Weights

CAPSULES = ("digit", "lengths", "coupling")
OUTPUTS = {"capsnet": (*CAPSULES, "reconstruction"), "cnn": ("probabilities",)}
"""Model kind -> the fields of `Outputs` that there are."""
PRIMARY_SCALES = {"zero": 0.0, "tiny": 1e-4, "huge": 1e4}
"""What the primary capsules' weights are multiplied by, so that s.s is 0, about epsilon, very large."""
LATE = 999  # completed steps before the thousandth


@dataclass(frozen=True)
class Setting:
    """Where everyone is compared: `images` uint8 (B, H, W, C) and `labels` (B,), weights, and `steps` of a trajectory.

    `batch` is what everyone is compiled for; the images are the first B of what is staged. Where the model's images show
    several digits, these are the single ones, and `shown` what is made of them.
    """

    model: ModelSpec
    optim: OptimSpec
    images: np.ndarray
    labels: np.ndarray
    probe: Weights
    initial: Weights
    steps: int
    batch: int

    def plan(self, examples: int) -> EpochPlan:
        """The images one after the other, over and over, each time shifted in another way; the last batch is incomplete.

        Where the model has dropout, each time with other units dropped.
        """
        order = self.shown_indices[np.arange(examples) % len(self.labels)]
        # of several digits, each in a way of its own
        turns = (np.arange(examples)[:, None] + 7 * np.arange(self.model.overlaid)).reshape(order.shape)
        shifts = np.stack([turns % 3 - 1, turns % 5 - 2], axis=-1).astype(np.int8)
        generator = np.random.Generator(np.random.Philox(key=[examples, zlib.crc32(b"dropout")]))
        return EpochPlan(order.astype(np.int32), shifts, self.batch, kept_units(generator, self.model, examples))

    @cached_property
    def shown_indices(self) -> np.ndarray:
        """(B,) or (B, K): which of the images each image of a batch is made of."""
        count, digits = len(self.labels), self.model.overlaid
        if digits == 1:
            return np.arange(count)
        if self._has_too_few_classes:
            return (np.arange(count)[:, None] + np.arange(digits)) % count
        draws = np.arange(1, count * (digits - 1) + 1) * 0.618034 % 1
        return overlays(self.labels, draws.reshape(count, digits - 1))

    @property
    def _has_too_few_classes(self) -> bool:
        """Whether no image can be put together of digits of different classes: a few images may be all of one."""
        return len(np.unique(self.labels)) < self.model.overlaid

    @property
    def shown(self) -> np.ndarray:
        """(B, H, W, C) or (B, K, H, W, C): what is put in."""
        return self.images[self.shown_indices]

    @property
    def classes(self) -> np.ndarray:
        """(B,) or (B, K): the labels of `shown`, or others, where those are not of different classes."""
        found = self.labels[self.shown_indices]
        return (
            (found[:, :1] + np.arange(self.model.overlaid)) % self.model.classes if self._has_too_few_classes else found
        )


class Value(NamedTuple):
    """`kind` is the row of `harness.parity.tolerances` that it is judged by."""

    level: str
    kind: str
    name: str
    value: object


class Moved(NamedTuple):
    """How far a weight moved in a step, and how far Adam's rule moves it, given the moments after the step.

    Everyone's own moments: where a gradient is nothing but rounding, Adam makes a full step of it all the same.
    """

    found: np.ndarray | None
    rule: np.ndarray


Values = Iterator[Value]
Measure = Callable[[Impl, Setting], Values]


def capsules(impl: Impl, at: Setting) -> Values:
    """L2: routing, and squash at nothing, next to nothing and very much."""
    yield from routed(impl, at)
    for label, factor in PRIMARY_SCALES.items():
        scale = np.float32(factor)
        impl.load({name: scale * w if name.startswith("primary") else w for name, w in at.probe.items()})
        yield from _named("L2", "forward", f"squash_{label}", impl.forward(at.shown), CAPSULES)


def routed(impl: Impl, at: Setting) -> Values:
    """L2: the state after the model's routing iterations."""
    impl.load(at.probe)
    yield from _named("L2", "forward", f"r{at.model.routing}", impl.forward(at.shown), ("digit", "coupling"))


def one_batch(impl: Impl, at: Setting) -> Values:
    """L3: outputs and each term of the loss. L4: the gradient of every weight, by name."""
    impl.load(at.probe)
    yield from _named("L3", "forward", "forward", impl.forward(at.shown), OUTPUTS[at.model.kind])
    loss, grads = impl.loss_and_grads(at.shown, at.classes)
    yield from _named("L3", "loss", "loss", loss, at.model.loss_terms)
    for name in at.probe:
        yield Value("L4", "grad", f"grad.{name}", grads.get(name))


def starts(at: Setting) -> list[tuple[int, Weights, Moments | None]]:
    """Of L5: the number of the step, and the weights and the moments before it.

    Biases are zero before the first: in float32, what a weight near one moves by is little but rounding; what a zero
    moves by is exact.
    """
    from_zero = {name: 0 * w if name.endswith(".b") else w for name, w in at.probe.items()}
    return [(1, from_zero, None), (LATE + 1, at.probe, probe_moments(at.probe, LATE))]


def single_steps(impl: Impl, at: Setting) -> Values:
    """L5: the first step and the thousandth: loss, Adam's moments, and how far every weight moved."""
    for step, weights, moments in starts(at):
        impl.load(weights, moments)
        before = impl.dump()
        yield Value("L5", "loss", f"step{step}.loss", impl.train(at.plan(len(at.labels))).loss.total)
        after, own = impl.dump(), impl.dump_moments()
        yield Value("L5", "exact", f"step@{step}", own.step)
        for name in at.probe:
            yield Value("L5", "moment", f"first.{name}@{step}", own.first.get(name))
            yield Value("L5", "moment", f"second.{name}@{step}", own.second.get(name))
        for name in at.probe:
            yield Value("L5", "update", f"update.{name}@{step}", moved(name, before, after, own, at.optim))


def moved(name: str, before: Weights, after: Weights, moments: Moments, optim: OptimSpec) -> Moved:
    """Of one weight; nothing is found where a name is missing."""
    if not all(name in part for part in (before, after, moments.first, moments.second)):
        return Moved(None, np.zeros(1))
    return Moved(after[name].astype(np.float64) - before[name], adam_update(moments, name, optim))


def trajectory(impl: Impl, at: Setting) -> Values:
    """L6: an evaluation; training from the initial weights, the losses of every step, every other batch incomplete; then
    an epoch of several batches, and an evaluation again.

    Where the batch is larger than the images, that epoch is left out: it would be of many images.
    """
    impl.load(at.probe)
    yield from _named("L6", "trajectory", "evaluation", impl.evaluate(at.shown, at.classes).loss, at.model.loss_terms)
    if not at.steps:
        return
    impl.load(at.initial)
    count = len(at.labels)
    for step in range(1, at.steps + 1):
        yield from _epoch(impl, at, f"step{step}", count if step % 2 else max(1, count // 2))
    if at.batch == count:
        yield from _epoch(impl, at, "epoch", 2 * count + (count + 1) // 2)
    yield from _named("L6", "trajectory", "trained", impl.evaluate(at.shown, at.classes).loss, at.model.loss_terms)


def _epoch(impl: Impl, at: Setting, name: str, examples: int) -> Values:
    totals = impl.train(at.plan(examples))
    yield Value("L6", "exact", f"{name}.count", totals.count)
    yield from _named("L6", "trajectory", name, totals.loss, at.model.loss_terms)


def _named(level: str, kind: str, prefix: str, values: object, names: Sequence[str]) -> Values:
    for name in names:
        yield Value(level, kind, f"{prefix}.{name}", getattr(values, name))
