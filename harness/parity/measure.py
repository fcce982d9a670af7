"""An implementation's values at the levels of the ladder: named, one after the other as they are computed.

The code is the same for the implementation, the specification, its float32 twin, and the specification with a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from harness.parity.probe import adam_update, close_weights, probe_moments
from harness.parity.setting import Setting
from harness.spec import EpochPlan, EvalTotals, Impl, Moments, OptimSpec, Outputs, TrainTotals, Weights

CAPSULES = ("digit", "lengths", "coupling")
PRIMARY_SCALES = {"zero": 0.0, "tiny": 1e-4, "huge": 1e4}
"""Factors of the primary capsules' weights that make s.s zero, about epsilon, or very large."""
STEPS = (1, 1_000, 100_000)  # single steps, each from drawn moments
_ROUNDING = 0.52  # of the distance to the next number: half of it, and a little for intermediate rounding
_LATEST = 2**24  # above it, float32 does not have every whole number


class Value(NamedTuple):
    """`kind` is the row of `harness.parity.tolerances` that it is judged by."""

    level: str
    kind: str
    name: str
    value: object


class Moved(NamedTuple):
    """How far a weight moved in a step, and how far Adam's rule moves it, given the moments after the step.

    Each side uses its own moments: Adam makes a full step even of a gradient that is mere rounding. `rounding` is the
    unavoidable error of a weight of its size and precision.
    """

    found: np.ndarray | None
    rule: np.ndarray
    rounding: np.ndarray

    @property
    def unrounded(self) -> np.ndarray | None:
        """The movement found, moved as close to the rule as rounding allows."""
        if self.found is None or self.found.shape != self.rule.shape:
            return self.found
        return self.found - np.clip(self.found, self.rule - self.rounding, self.rule + self.rounding) + self.rule


class Decoded(NamedTuple):
    """Reconstructions (N, ...) from the longest capsules, and the lengths (N, J) that decided which are longest."""

    pixels: np.ndarray | None
    scores: np.ndarray | None


class Ranked(NamedTuple):
    """Predicted classes (N,) or (N, K) of `images` images, and for the specification the scores (N, J) that decided."""

    classes: np.ndarray
    images: int
    scores: np.ndarray | None


class Counted(NamedTuple):
    """How many of a step's `images` are right; for the specification also the scores (N, J) that decided, and the labels."""

    correct: int
    images: int
    scores: np.ndarray | None
    labels: np.ndarray


Values = Iterator[Value]
Measure = Callable[[Impl, Setting], Values]


def capsules(impl: Impl, at: Setting) -> Values:
    """L2: routing, and squash at zero, close to zero and at very large values."""
    yield from routed(impl, at)
    for label, factor in PRIMARY_SCALES.items():
        scale = np.float32(factor)
        impl.load({name: scale * w if name.startswith("primary") else w for name, w in at.probe.items()})
        yield from _named("L2", "forward", f"squash_{label}", impl.forward(at.compared_images), CAPSULES)


def routed(impl: Impl, at: Setting) -> Values:
    """L2: the state after the model's routing iterations."""
    impl.load(at.probe)
    yield from _named("L2", "forward", f"r{at.model.routing}", impl.forward(at.compared_images), ("digit", "coupling"))


def one_batch(impl: Impl, at: Setting) -> Values:
    """L3: outputs and each term of the loss. L4: the gradient of every weight, by name. At every probe."""
    for probe, weights in at.probes.items():
        if at.brief and probe in ("even", "short"):
            continue
        mark = "" if weights is at.probe else f"@{probe}"
        images, labels = at.compared(probe)
        impl.load(weights)
        yield from _named("L3", "forward", "forward", impl.forward(images), at.kind.outputs, mark)
        loss, grads = impl.loss_and_grads(images, labels)
        yield from _named("L3", "loss", "loss", loss, at.model.loss_terms, mark)
        for name in weights:
            yield Value("L4", "grad", f"grad.{name}{mark}", grads.get(name))


def starts(at: Setting) -> list[tuple[int, Weights, Moments | None]]:
    """For L5: the number of each step, and the weights and moments before it.

    In addition to `STEPS`, one in the middle of training, and the step at which the learning rate has reached its
    floor. Biases after the convolutions are zero before the first step: in float32, the movement of a weight near one
    is mostly rounding; that of a zero is exact.
    """
    late = at.kind.late_biases(at.model)
    from_zero = {name: 0 * w if name in late else w for name, w in at.probe.items()}
    begun: list[tuple[int, Weights, Moments | None]] = [(STEPS[0], from_zero, None)]
    amid = max(at.first_step, 1) + 1
    later = [amid, *(step for step in (*STEPS[1:], *floor_step(at.optim)) if step != amid)]
    if at.brief:
        later = [amid, later[-1]]
    for index, step in enumerate(later):
        weights = (at.probes["graded"], at.even, at.probe)[index % 3]
        begun.append((step, weights, probe_moments(weights, step - 1)))
    return begun


def floor_step(optim: OptimSpec) -> list[int]:
    """The step from which the learning rate stays at the floor, if float32 can count that far; else empty."""
    decay = optim.lr_decay
    if decay.kind == "constant" or decay.rate == 1 or not 0 < decay.floor < optim.lr:
        return []
    step = int((np.log(decay.floor / optim.lr) / np.log(decay.rate) + 1) * decay.steps) + 2
    return [step] if step <= _LATEST and step not in STEPS else []


def single_steps(impl: Impl, at: Setting) -> Values:
    """L5: single steps: the counts, the losses, Adam's moments, and how far every weight moved."""
    for index, (step, weights, moments) in enumerate(starts(at)):
        yield from _one_step(impl, at, step, weights, moments, index * at.images_a_step)


def first_step(impl: Impl, at: Setting) -> Values:
    """The first of `single_steps`, and an evaluation: the values for an implementation in another mode."""
    step, weights, moments = starts(at)[0]
    yield from _one_step(impl, at, step, weights, moments, 0)
    yield from _evaluated(impl, at, "evaluation", level="L5")


def _one_step(impl: Impl, at: Setting, step: int, weights: Weights, moments: Moments | None, offset: int) -> Values:
    impl.load(weights, moments)
    before = impl.dump()
    plan = at.all_shifts() if offset == at.images_a_step else at.plan(at.images_a_step, offset)
    yield from _trained("L5", "loss", impl, at, f"@{step}", plan)
    after, own = impl.dump(), impl.dump_moments()
    yield Value("L5", "exact", f"step@{step}", own.step)
    for name in weights:
        yield Value("L5", "moment", f"first.{name}@{step}", own.first.get(name))
        yield Value("L5", "moment", f"second.{name}@{step}", own.second.get(name))
    for name in weights:
        yield Value("L5", "update", f"update.{name}@{step}", moved(name, before, after, own, at.optim))


def moved(name: str, before: Weights, after: Weights, moments: Moments, optim: OptimSpec) -> Moved:
    """The movement of one weight; None is found if a name is missing."""
    if not all(name in part for part in (before, after, moments.first, moments.second)):
        return Moved(None, np.zeros(1), np.zeros(1))
    w, rule = after[name], adam_update(moments, name, optim)
    return Moved(w.astype(np.float64) - before[name], rule, _ROUNDING * np.spacing(np.abs(w)))


def trajectory(impl: Impl, at: Setting) -> Values:
    """L6: an evaluation, a step, an evaluation; training from the initial weights with every other batch incomplete; another.

    The first evaluation has several batches, the last incomplete, and must change nothing. It and the step after it use
    weights with which each image has a different winner. The last two steps of training are an epoch of two batches; if
    repeated images cannot fill a batch, they are separate steps, since that epoch would need many different images. In
    brief, the first step is left to L5.
    """
    impl.load(at.even, probe_moments(at.even, at.first_step))
    before = impl.dump(), impl.dump_moments()
    yield from _evaluated(impl, at, "evaluation", of_several=True)
    yield Value("L6", "exact", "evaluation.weights", apart(before[0], impl.dump()))
    yield Value("L6", "exact", "evaluation.moments", moments_apart(before[1], impl.dump_moments()))
    impl.load(close_weights(at.probes, at.kind.class_axes(at.model)), before[1])
    yield from _evaluated(impl, at, "close")
    if at.steps and not at.brief:
        impl.load(at.even, before[1])
        yield from _trained("L6", "trajectory", impl, at, "step1.", at.plan(at.images_a_step, 0, gentle=True))
        yield from _evaluated(impl, at, "stepped", "trajectory")
    impl.load(at.initial, probe_moments(at.initial, at.first_step))
    for step in range(2, at.steps + 1):
        images, offset = at.images_a_step if step % 2 else max(1, at.images_a_step // 2), (step - 1) * at.images_a_step
        if at.fills and step == at.steps - 1:
            images = at.images_a_step + (at.images_a_step + 1) // 2
            yield from _trained("L6", "trajectory", impl, at, "epoch.", at.plan(images, offset, gentle=True))
            break
        yield from _trained("L6", "trajectory", impl, at, f"step{step}.", at.plan(images, offset, gentle=True))
    yield from _evaluated(impl, at, "trained", "trajectory", is_dim=True)
    impl.load(_undecided(at))
    yield Value("L6", "exact", "tie.predicted", impl.evaluate(at.shown[:1], at.classes[:1]).predicted)


def _undecided(at: Setting) -> Weights:
    """The probe's weights with zeros in the layer that tells the classes apart: all scores are equal."""
    return at.probe | {name: 0 * at.probe[name] for name in at.kind.class_axes(at.model)}


def _trained(level: str, kind: str, impl: Impl, at: Setting, mark: str, plan: EpochPlan) -> Values:
    """What `train` returns for an epoch; `mark` goes before the names or, if it begins with "@", after them."""

    def name(what: str) -> str:
        return what + mark if mark.startswith("@") else mark + what

    totals: TrainTotals = impl.train(plan)
    yield Value(level, "exact", name("count"), totals.count / len(plan.order))
    for term in at.model.loss_terms:
        yield Value(level, kind, name(term if level == "L6" else f"loss.{term}"), getattr(totals.loss, term))
    right = Counted(totals.correct, len(plan.order), getattr(impl, "scores", None), at.labels[plan.order])
    yield Value(level, "ranked", name("correct"), right)
    at.trained_on[:] = [plan]  # kept alive until the next plan, as in a run: no two plans in a row share an identity


def _evaluated(
    impl: Impl,
    at: Setting,
    name: str,
    kind: str = "loss",
    level: str = "L6",
    of_several: bool = False,
    is_dim: bool = False,
) -> Values:
    images, labels = at.evaluated(of_several)
    totals: EvalTotals = impl.evaluate(images // 2 if is_dim else images, labels)
    yield from _named(level, kind, name, totals.loss, at.model.loss_terms)
    ranked = Ranked(totals.predicted, len(labels), getattr(impl, "scores", None))
    yield Value(level, "ranked", f"{name}.predicted", ranked)


def apart(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """The largest absolute difference between two dictionaries of arrays; inf if names or shapes differ, or for NaN."""
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        return np.inf
    differences = [float(np.abs(one[name] - other[name]).max(initial=0)) for name in one]
    return max((np.inf if np.isnan(each) else each for each in differences), default=0.0)


def moments_apart(one: Moments, other: Moments) -> float:
    """The same for Adam's state; the number of steps counts like any value."""
    return max(apart(one.first, other.first), apart(one.second, other.second), float(abs(one.step - other.step)))


def _named(level: str, kind: str, prefix: str, values: object, names: Sequence[str], mark: str = "") -> Values:
    for name in names:
        value = getattr(values, name)
        if isinstance(values, Outputs) and name == "reconstruction":
            value = Decoded(value, values.lengths)
        yield Value(level, kind, f"{prefix}.{name}{mark}", value)
