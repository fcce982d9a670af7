"""The checks of an audit: training steps repeated, a gradient and a step by the specification, and test images.

Each check returns what is wrong, in words, or None. Random choices come from the generator passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from harness import registry
from harness.data import Split
from harness.parity.check import compare, relative_error
from harness.parity.measure import moved
from harness.parity.tolerances import bound, spared
from harness.spec import EpochPlan, Impl, Moments, Runtime, TrainTotals, Weights
from harness.spec.trial import Trial

State = tuple[Weights, Moments]

_APART = 0.01  # of the steps' change, in Euclidean norm: a CPU repeats it exactly, a GPU nearly, but for switched ReLUs
_IMAGES, _DRAWS = 4, 3  # of a gradient: a ReLU may switch in one draw, but not in all of them
_TIPPED = 0.2  # more than a single ReLU of one image can change a moment
_CHUNK = 16  # test images classified at once
_SMALL = 1e-3  # smaller losses are judged by absolute error: when all images are right, little but rounding is left


@dataclass(frozen=True)
class Segment:
    """Some steps of an epoch as training made them, with the state before the first and after the last."""

    plan: EpochPlan
    before: State
    after: State
    totals: TrainTotals
    generator: np.random.Generator

    @property
    def steps(self) -> int:
        return -(-len(self.plan.order) // self.plan.batch)


def rows_of(plan: EpochPlan, rows: slice | Int[np.ndarray, " n"], batch: int | None = None) -> EpochPlan:
    """The plan of some of its images."""
    kept = None if plan.kept is None else plan.kept[rows]
    return EpochPlan(plan.order[rows], plan.shifts[rows], batch or plan.batch, kept)


def part_of(plan: EpochPlan, start: int, end: int) -> EpochPlan:
    """The plan of its steps from `start`, counted from 0, up to but not including `end`."""
    return rows_of(plan, slice(start * plan.batch, end * plan.batch))


def together(totals: Sequence[TrainTotals]) -> TrainTotals:
    """The totals of several calls of `train`, combined into one."""
    if len(totals) == 1:
        return totals[0]
    count = sum(each.count for each in totals)

    def mean(name: str) -> float | None:
        values = [getattr(each.loss, name) for each in totals]
        return None if None in values else sum(v * each.count for v, each in zip(values, totals, strict=True)) / count

    loss = replace(totals[0].loss, **{term.name: mean(term.name) for term in fields(totals[0].loss)})
    return TrainTotals(count, loss, sum(each.correct for each in totals))


def repeated(impl: Impl, segment: Segment, trial: Trial) -> str | None:
    """Repeats the segment's steps one by one: are weights, moments, losses and right images the same?"""
    impl.load(*segment.before)
    totals = together([impl.train(part_of(segment.plan, step, step + 1)) for step in range(segment.steps)])
    weights, moments = impl.dump(), impl.dump_moments()
    then, now = segment.after[1].step, moments.step
    if then != now:
        return f"training left Adam at step {then}; repeated, they leave it at step {now}"
    again: State = (weights, moments)
    for what, before, after, found in zip(
        ("", "first moment of ", "second moment of "),
        *map(_tensors, (segment.before, segment.after, again)),
        strict=True,
    ):
        for name in before:
            if (apart := _apart(before[name], after[name], found[name])) > _APART:
                return f"{what}{name} went another way in training than when they are repeated: {apart:.0%} of it apart"
    was, loss = segment.totals.loss, totals.loss
    for term in trial.model.loss_terms:
        if _off(getattr(was, term), getattr(loss, term)) > bound("trajectory", trial.runtime.precision):
            return f"training told a {term} loss of {getattr(was, term):.6g}; repeated, it is {getattr(loss, term):.6g}"
    if abs(segment.totals.correct - totals.correct) > max(1, totals.count // 100):  # a few may be near ties
        return f"training told of {segment.totals.correct} right images; repeated, there are {totals.correct}"
    return None


def derived(impl: Impl, segment: Segment, trial: Trial, train: Split) -> str | None:
    """A step from the segment's first state, on a few images of its first step: does it agree with the specification?

    The batch is full: the few images are repeated, in random order, so that every place in the batch is used.
    """
    found: _Found | None = None
    for _ in range(_DRAWS):
        found = _derived_once(impl, segment, trial, train)
        if found is None or found.is_certain:
            break
    return found and found.fault


class _Found(NamedTuple):
    fault: str
    is_certain: bool  # too far off for rounding, which can switch a ReLU or a tie


def _derived_once(impl: Impl, segment: Segment, trial: Trial, train: Split) -> _Found | None:
    plan, precision, terms = segment.plan, trial.runtime.precision, trial.model.loss_terms
    places = min(plan.batch, len(plan.order))
    few = segment.generator.choice(places, min(_IMAGES, places), replace=False)
    times = places // len(few)
    impl.load(*segment.before)
    found = impl.train(rows_of(plan, segment.generator.permutation(np.repeat(few, times))))
    weights, moments = impl.dump(), impl.dump_moments()

    answers: list[tuple[TrainTotals, Moments]] = []
    for width in ("fp64",) if precision == "fp64" else ("fp64", "fp32"):  # the twin shows what rounding does
        net = specification(trial, width)
        net.load(*segment.before)
        net.stage(train.images, train.labels)
        answers.append((net.train(rows_of(plan, few, len(few))), net.dump_moments()))
    (exact, right), (close, twin) = answers[0], answers[-1]

    if exact.correct == close.correct and found.correct != times * exact.correct:
        right_told = f"{found.correct} of {times * len(few)} images"
        return _Found(f"{right_told} count as right, by the specification {times * exact.correct}", False)
    for term in terms:
        mine, theirs = getattr(found.loss, term), getattr(exact.loss, term)
        if _off(mine, theirs) > bound("trajectory", precision):
            return _Found(f"the {term} loss is {mine:.6g}, by the specification {theirs:.6g}", True)
    share = spared("moment", precision)
    for what in ("first", "second"):
        mine, theirs, rounded = (getattr(each, what) for each in (moments, right, twin))
        for name in theirs:
            error = compare("", "", rounded[name], theirs[name], 1.0, share).rel_err
            if not math.isfinite(error):
                continue  # about to diverge: there is nothing to compare with
            check = compare("", "", mine.get(name), theirs[name], bound("moment", precision, error), share)
            if not check.ok:
                off = f"off by {check.rel_err:.1e}, by the specification (tolerance {check.tolerance:.0e})"
                return _Found(f"the {what} moment of {name} is {off}", check.rel_err > _TIPPED)
    before = segment.before[0]
    for name in before:
        way = moved(name, before, weights, moments, trial.train.optim)
        if relative_error(way.unrounded, way.rule) > bound("update", precision):
            return _Found(f"{name} did not move as Adam's rule says", True)
    return None


def classified(
    trial: Trial,
    weights: Weights,
    test: Split,
    predicted: Int[np.ndarray, "N ..."],
    chosen: Int[np.ndarray, " n"],
    goes_on: Callable[[float], bool],
) -> tuple[int, int, str | None]:
    """How many of the `chosen` test images the specification classified, how many are near ties, and what is wrong.

    Before each chunk but the first, `goes_on` is asked whether there is time for the given multiple of the time so far.
    A near tie is classified differently, but no chosen capsule (or class) is shorter than the right one by more than
    rounding.
    """
    precision = trial.runtime.precision
    net = specification(trial, "fp64" if precision == "fp64" else "fp32")
    exact = specification(trial, "fp64")
    for each in (net, exact):
        each.load(weights)
    few = test.images[chosen[:_IMAGES]]
    error = relative_error(net.forward(few).lengths, exact.forward(few).lengths)
    rounding = 2 * bound("forward", precision, error if math.isfinite(error) else 0.0)
    images, near, wrong = 0, 0, list[str]()
    while images < len(chosen) and (not images or goes_on(1 + _CHUNK / images)):
        places = chosen[images : images + _CHUNK]
        lengths = net.forward(test.images[places]).lengths
        for place, row in zip(places, lengths, strict=True):
            if not np.isfinite(row).all():  # it has diverged: any class will do
                near += 1
                continue
            mine = np.unique(predicted[place])
            least = np.sort(row)[-trial.model.overlaid]
            short = least - row[mine].min() if _is_choice(mine, trial.model.overlaid, len(row)) else math.inf
            near += int(0 < short <= rounding * row.max())
            if not short <= rounding * row.max():
                theirs = np.sort(np.argsort(-row, kind="stable")[: trial.model.overlaid])
                wrong.append(
                    f"test image {place} is {_classes(mine)} to evaluate, {_classes(theirs)} to the specification"
                )
        images += len(places)
    fault = f"of {images} test images, {len(wrong)} are classified otherwise: {wrong[0]}" if wrong else None
    return images, near, fault


def specification(trial: Trial, precision: str) -> Any:
    """The specification of the trial's network, with operands rounded like the trial's."""
    net: Any = registry.specification()
    return net(
        trial.model, trial.train.optim, Runtime.model_validate({"precision": precision}), trial.runtime.precision
    )


def _tensors(state: State) -> tuple[Weights, Weights, Weights]:
    return state[0], state[1].first, state[1].second


def _apart(before: np.ndarray, after: np.ndarray, found: np.ndarray) -> float:
    """The distance of `found` from `after`, as a share of the change from `before`; ignores the rounding of stored values."""
    if np.array_equal(after, found, equal_nan=True):
        return 0.0
    way, distance = (
        float(np.linalg.norm(np.subtract(a, b, dtype=np.float64))) for a, b in ((after, before), (found, after))
    )
    rounding = np.finfo(after.dtype).eps * float(np.linalg.norm(after.astype(np.float64)))
    if not math.isfinite(distance):
        return math.inf
    return max(0.0, distance - rounding) / way if way else math.inf if distance > rounding else 0.0


def _off(found: float, expected: float) -> float:
    return abs(found - expected) / max(abs(expected), _SMALL)


def _is_choice(classes: Int[np.ndarray, " k"], count: int, known: int) -> bool:
    """Whether there are `count` different classes, all of them known."""
    return len(classes) == count and int(classes[0]) >= 0 and int(classes[-1]) < known


def _classes(classes: Int[np.ndarray, " k"]) -> str:
    return " and ".join(map(str, classes))
