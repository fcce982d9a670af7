"""Self-consistency of an implementation: a batch and its parts, an epoch and its halves, a call and its repetition.

This is cheap, since nothing is compared with the specification, and it uses whole batches of different images: whatever
chunks and blocks an implementation computes in, its last image is checked like its first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness.parity.check import Check, compare
from harness.parity.measure import apart, moments_apart
from harness.parity.probe import probe_moments
from harness.parity.setting import Setting
from harness.parity.tolerances import bound, spared
from harness.spec import EpochPlan, Impl, Moments, TrainTotals, Weights
from harness.spec.plans import kept_units, overlays

TINY = 2  # images per batch in the epoch that is longer than any block of steps
STEPS = 130  # of that epoch
_CUT = 70  # steps before the second way to run it is interrupted
_RIGHT = 300  # images of an epoch whose images are all right
_LOOSER = 2.0  # both sides are rounded, not just one


def kept(impl: Impl, probes: Sequence[Weights]) -> Iterator[tuple[str, float]]:
    """L1: names, and how far dumped arrays are from loaded ones: all of them, fresh if none are given, and copies."""
    mine = {name: w.copy() for name, w in probes[-1].items()}
    moments = probe_moments(mine, 7)
    own = Moments(7, {k: m.copy() for k, m in moments.first.items()}, {k: m.copy() for k, m in moments.second.items()})
    impl.load(mine, own)
    for array in (*mine.values(), *own.first.values(), *own.second.values()):
        array[...] = 3.0
    yield "loaded.weights", apart(probes[-1], impl.dump())
    yield "loaded.moments", moments_apart(moments, impl.dump_moments())
    dumped, state = impl.dump(), impl.dump_moments()
    for array in (*dumped.values(), *state.first.values(), *state.second.values()):
        if array.flags.writeable:
            array[...] = 5.0
    yield "dumped.weights", apart(probes[-1], impl.dump())
    yield "dumped.moments", moments_apart(moments, impl.dump_moments())
    impl.load(probes[0])
    zeros = {name: np.zeros_like(w) for name, w in probes[0].items()}
    yield "fresh.weights", apart(probes[0], impl.dump())
    yield "fresh.moments", moments_apart(Moments(0, zeros, zeros), impl.dump_moments())


def whole_batch(impl: Impl, at: Setting, precision: str, checks: Sequence[Check]) -> Iterator[Check]:
    """L6: a step on a whole batch of different images against one on each half, with their images in reverse order.

    Losses, numbers of right images and gradients (seen in Adam's first moment) must add up. `checks` of L4 tell how
    precisely a gradient is known.
    """
    plan = _drawn_plan(at, at.batch, at.batch)
    backwards = np.arange(at.batch)[::-1]
    cuts = [] if at.batch == 1 else [at.batch // 2]
    parts = [_some(plan, places) for places in np.split(backwards, cuts)]
    runs = [_step(impl, at.even, part) for part in (plan, *parts)]
    (whole, gradient, _), *others = runs
    counts = [totals.count for totals, _, _ in others]
    yield _check("whole.count", whole.count, float(sum(counts)), bound("exact", precision))
    yield _check("whole.dump", max(distance for _, _, distance in runs), 0.0, bound("exact", precision))
    yield from _sums("whole", at, whole, [totals for totals, _, _ in others], "loss", precision)
    known = {check.name: check.tolerance for check in checks if check.level == "L4"}
    for name, found in gradient.items():
        expected = sum(
            count * part[name].astype(np.float64) for count, (_, part, _) in zip(counts, others, strict=True)
        )
        mark = "" if at.even is at.probe else "@even"
        tolerance = _LOOSER * max(known.get(f"grad.{name}{mark}", 0.0), bound("grad", precision))
        check = compare("L6", f"whole.{name}", found, expected / at.batch, tolerance, spared("grad", precision))
        yield replace(check, kind="grad")


def _step(impl: Impl, weights: Weights, plan: EpochPlan) -> tuple[TrainTotals, Weights, float]:
    """A step from a fresh optimiser: totals, the first moment, and how far arrays dumped before the step have changed."""
    impl.load(weights)
    dumped = impl.dump()
    copied = {name: array.copy() for name, array in dumped.items()}
    totals = impl.train(plan)
    return totals, impl.dump_moments().first, apart(dumped, copied)


def counted(impl: Impl, at: Setting, precision: str) -> Iterator[Check]:
    """L6: an epoch of rightly classified images, more than a byte can count, at weights that do not move."""
    weights = at.probes["graded"]
    impl.load(weights)
    predicted = np.asarray(impl.evaluate(at.shown, at.classes).predicted)
    right = (predicted == at.classes).reshape(len(predicted), -1).all(1)
    if not right.any() or kept_units(np.random.default_rng(0), at.model, 1) is not None:  # dropout changes decisions
        return
    order = np.resize(at.shown_indices[right], (_RIGHT, *at.shown_indices.shape[1:]))
    plan = EpochPlan(order.astype(np.int32), np.zeros((*order.shape, 2), np.int8), at.batch, None)
    still = {
        name: np.full_like(w, 1e12) for name, w in weights.items()
    }  # a second moment beside which no gradient shows
    impl.load(weights, Moments(1, {name: np.zeros_like(w) for name, w in weights.items()}, still))
    differ = abs(impl.train(plan).correct - _RIGHT)
    yield _check("counted.correct", float(differ), 0.0, 0.5 if precision == "fp64" else 0.5 + _RIGHT // 100)


def evaluation(impl: Impl, at: Setting, precision: str) -> Iterator[Check]:
    """L6: an evaluation of a whole batch of different images, and of the same images in reverse order.

    Each image's classes and the mean losses must stay the same.
    """
    impl.load(at.even)
    indices = _drawn_plan(at, at.batch, at.batch).order
    first, other = (impl.evaluate(at.seen(some), at.labels[some]) for some in (indices, indices[::-1]))
    one, two = np.asarray(first.predicted), np.asarray(other.predicted)
    differ = math.inf if one.shape != two.shape else float((one != two[::-1]).reshape(len(one), -1).any(1).sum())
    # a near tie may be decided differently in another position
    allowed = 0 if precision == "fp64" else max(1, at.batch // 100)
    yield _check("order.predicted", differ, 0.0, allowed + 0.5)
    for term in at.model.loss_terms:
        tolerance = _LOOSER * bound("trajectory", precision)
        check = _check(f"order.{term}", getattr(first.loss, term), getattr(other.loss, term), tolerance)
        yield replace(check, kind="trajectory")


def blocks(impl: Impl, at: Setting, precision: str) -> Iterator[Check]:
    """L6: an epoch of more steps than any block has, against the same in two parts, with a dump and load in between.

    `impl` is compiled for tiny batches. An evaluation of as many batches is compared with two of one part each.
    """
    plan = _drawn_plan(at, STEPS * at.batch - 1, at.batch)
    impl.load(at.initial)
    whole, end = impl.train(plan), impl.dump()
    cut = _CUT * at.batch
    parts: list[TrainTotals] = []
    impl.load(at.initial)
    ends = [cut, *range(cut + at.batch, len(plan.order), at.batch)]  # many steps at once, then one by one
    for places in np.split(np.arange(len(plan.order)), ends):
        parts.append(impl.train(_some(plan, places)))
        if len(parts) == 1:
            impl.load(impl.dump(), impl.dump_moments())
    yield _check("blocks.count", whole.count, len(plan.order), bound("exact", precision))
    yield from _sums("blocks", at, whole, parts, "trajectory", precision)
    again = impl.dump()
    yield _check("blocks.step", impl.dump_moments().step, STEPS, bound("exact", precision))
    for name, w in end.items():
        moved = float(np.abs(again[name] - at.initial[name]).max(initial=0))
        distance = float(np.abs(w.astype(np.float64) - again[name]).max(initial=0))
        yield replace(
            _check(f"blocks.{name}", distance / moved if moved else distance, 0.0, _LOOSER * bound("grad", precision)),
            kind="grad",
        )
    images, labels = at.seen(plan.order), at.labels[plan.order]
    long = impl.evaluate(images, labels)
    short = [impl.evaluate(images[:cut], labels[:cut]), impl.evaluate(images[cut:], labels[cut:])]
    joined = np.concatenate([part.predicted for part in short])
    differ = math.inf if joined.shape != np.shape(long.predicted) else float((joined != long.predicted).sum())
    yield _check("blocks.predicted", differ, 0.0, bound("exact", precision))
    counts = (cut, len(labels) - cut)
    for term in at.model.loss_terms:
        mean = sum(n * getattr(part.loss, term) for n, part in zip(counts, short, strict=True)) / len(labels)
        tolerance = bound("trajectory", precision)
        check = _check(f"blocks.evaluation.{term}", getattr(long.loss, term), mean, tolerance)
        yield replace(check, kind="trajectory")


def _sums(
    name: str, at: Setting, whole: TrainTotals, parts: Sequence[TrainTotals], kind: str, precision: str
) -> Iterator[Check]:
    """Losses are the mean of the parts', counts of right images their sum; in float32, one near tie may go either way."""
    count = sum(part.count for part in parts)
    for term in at.model.loss_terms:
        mean = sum(part.count * getattr(part.loss, term) for part in parts) / count
        check = _check(f"{name}.{term}", getattr(whole.loss, term), mean, _LOOSER * bound(kind, precision))
        yield replace(check, kind=kind)
    differ = abs(whole.correct - sum(part.correct for part in parts))
    allowed = 0 if precision == "fp64" else max(1, count // 100)
    yield _check(f"{name}.correct", float(differ), 0.0, allowed + 0.5)


def _check(name: str, found: float, expected: float, tolerance: float) -> Check:
    return compare("L6", name, found, expected, tolerance)


def _drawn_plan(at: Setting, images: int, batch: int) -> EpochPlan:
    """`images` staged images, different ones as far as possible, each shifted differently."""
    generator = np.random.Generator(np.random.Philox(key=[images, batch]))
    count, digits = len(at.labels), at.model.overlaid
    order = generator.permutation(np.resize(generator.permutation(count), images))
    if digits > 1:
        order = overlays(at.labels, generator.random((count, digits - 1)))[order]
    shifts = generator.integers(-2, 2, (*order.shape, 2), endpoint=True).astype(np.int8)
    return EpochPlan(order.astype(np.int32), shifts, batch, kept_units(generator, at.model, images))


def _some(plan: EpochPlan, places: np.ndarray) -> EpochPlan:
    """The plan of the images at `places` only, in this order."""
    kept = None if plan.kept is None else plan.kept[places]
    return EpochPlan(plan.order[places], plan.shifts[places], plan.batch, kept)
