"""Names an implementation's faults: the specification with known faults is compared with the implementation's results.

Faults are edits of the specification's source that leave its backward pass unchanged. This search covers what lies
outside the network (training and evaluation), CNNs, and images with several digits. For the rest, see
`harness.parity.diagnosis.search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from harness import registry
from harness.parity.diagnosis.observed import relative
from harness.parity.diagnosis.variant import Variant, specified
from harness.parity.diagnosis.variant_net import VariantNet
from harness.parity.faults.capsnet import Fault
from harness.parity.faults.fault import faults_of
from harness.parity.faults.mutate import Edit, discard, mutant
from harness.parity.ladder import Ladder
from harness.parity.measure import (
    Counted,
    Decoded,
    Measure,
    Moved,
    Ranked,
    Value,
    capsules,
    moved,
    one_batch,
    single_steps,
    starts,
    trajectory,
)
from harness.parity.setting import Setting
from harness.spec import ADAM_BETA1, Conventions, Impl, Runtime

# In units of the ladder's tolerances:
FITS = 30.0  # the largest distance at which a fault counts as a match: it may amplify rounding
CLOSER = 0.05  # and it has to be this much closer than the explanation so far; or to pass,
HALF = 0.5  # only half as far, if that is not far itself
AS_GOOD = 10.0  # faults up to this many times the closest one's distance are indistinguishable from it
ROUNDING = 1e-3  # distances too small to rank
STEPS = 4  # of the trajectory: every other batch is incomplete, and its effect shows in the next


@dataclass(frozen=True)
class Candidate:
    """The specification, or a variant of its network, with faults as edits of its source."""

    variant: Variant
    faults: tuple[Fault, ...] = ()


_MEASURES: dict[str, Measure] = {"L2": capsules, "L3": one_batch, "L4": one_batch, "L5": single_steps, "L6": trajectory}


def named(ladder: Ladder, levels: Sequence[str], starts: Sequence[Candidate] = ()) -> tuple[list[Candidate], list[str]]:
    """The faults with which the specification gives the implementation's values at `levels`, the closest first.

    Also returns the levels that nothing known explains. Levels are explained from the lowest one that failed, each on
    top of the explanation of those below it, at first `starts`. Changes the implementation's weights and moments;
    passes on its exceptions.
    """
    tolerances = {check.name: check.tolerance for check in ladder.checks}
    climbed, failed = ({check.level for check in ladder.checks if ok or not check.ok} for ok in (True, False))
    base = specified(ladder.conventions)
    explained = list(starts or [Candidate(base)])
    for level in levels:
        undecided = level in climbed and len(explained) > 1
        if level not in failed and not undecided:
            continue
        compared = _Compared(ladder, level, _MEASURES[level], tolerances)
        start, explained = compared.closest(explained)
        if start <= 1 or level not in failed:
            continue
        limit = min(FITS, max(1, CLOSER * start), HALF * start)
        more = [
            replace(each, faults=(*each.faults, fault))
            for each in explained
            for fault in faults_of(ladder.at.model)
            if fault.level == level
        ]
        distance, extended = compared.closest(more, limit)
        if distance <= limit:
            explained = extended
        elif start > FITS or not any(each.faults or each.variant != base for each in explained):
            return explained, [other for other in levels if other >= level and other in failed]
    return explained, []


class _Compared:
    """The implementation's values at one level, and how far the specification with faults is from them."""

    def __init__(self, ladder: Ladder, level: str, measure: Measure, tolerances: Mapping[str, float]) -> None:
        self.level, self.measure, self.tolerances = level, measure, tolerances
        self.conventions = ladder.conventions
        self.at = replace(ladder.at, steps=min(STEPS, ladder.at.steps))
        self.found = {value.name: value.value for value in measure(ladder.impl, replace(self.at, whole=True))}

    def closest(self, candidates: Iterable[Candidate], limit: float = math.inf) -> tuple[float, list[Candidate]]:
        """The smallest distance, and all candidates that are as good, the closest first; none beyond `limit` is good."""
        ranked = sorted(
            ((self._distance(each, limit), index, each) for index, each in enumerate(candidates)),
            key=lambda each: each[:2],
        )
        best = ranked[0][0] if ranked else math.inf
        return best, [
            candidate for distance, _, candidate in ranked if distance <= min(AS_GOOD * best + ROUNDING, limit)
        ]

    def _distance(self, candidate: Candidate, limit: float) -> float:
        """The largest distance of all values, in units of the tolerances; stops at the first one beyond `limit`."""
        impl = _specification(candidate, self.at, self.conventions)
        if impl is None:
            return math.inf
        largest = 0.0
        with np.errstate(all="ignore"):
            for level, _, name, expected in self._measured(impl):
                if level == self.level and name in self.tolerances:
                    largest = max(largest, _relative(self.found.get(name), expected) / self.tolerances[name])
                if largest > limit or math.isinf(largest):
                    break
        return largest

    def _measured(self, impl: Any) -> Iterator[Value]:
        """The values of a faulty specification, whose steps use the implementation's gradients.

        If a gradient is close to epsilon, its rounding shows in how far a weight moves.
        """
        updates: dict[str, Moved] = {}
        for value in self.measure(impl, self.at):
            if value.kind != "update":
                updates = {}
            elif not updates:
                updates = self._moved(impl, int(value.name.rpartition("@")[2]))
            yield value._replace(value=updates[value.name]) if value.kind == "update" else value

    def _moved(self, impl: Any, step: int) -> dict[str, Moved]:
        weights, moments = next((weights, moments) for at, weights, moments in starts(self.at) if at == step)
        impl.load(weights, moments)
        before, grads = impl.dump(), {}
        for name in weights:
            after: Any = self.found.get(f"first.{name}@{step}")
            if after is None:  # nothing to compare
                return {f"update.{name}@{step}": Moved(None, np.zeros(1), np.zeros(1)) for name in weights}
            earlier = moments.first[name].astype(np.float64) if moments else 0.0
            grads[name] = (np.asarray(after, np.float64) - ADAM_BETA1 * earlier) / (1 - ADAM_BETA1)
        impl._step(grads)
        after, own = impl.dump(), impl.dump_moments()
        return {f"update.{name}@{step}": moved(name, before, after, own, self.at.optim) for name in weights}


def _specification(candidate: Candidate, at: Setting, conventions: Conventions) -> Impl | None:
    """The float64 specification with faults, ready to train; None if the faults cannot be combined."""
    try:
        make = _edited(tuple(edit for fault in candidate.faults for edit in fault.edits))
    except ValueError:
        return None
    impl = make(at.model, at.optim, Runtime(precision="fp64"), conventions=conventions)
    if candidate.variant != specified(conventions):
        impl.net = VariantNet(candidate.variant)
    impl.stage(at.images, at.labels)
    impl.compile(at.batch)
    return impl


@cache
def _edited(edits: tuple[Edit, ...]) -> Callable[..., Any]:
    entry = registry.resolve(registry.SPECIFICATION)
    copy = mutant(entry.module, edits)
    discard(copy)
    return getattr(copy, entry.class_name)


def _relative(found: object, expected: object) -> float:
    """The largest distance relative to the largest value; for movements, relative to how far Adam's rule moves a weight."""
    if isinstance(found, Decoded) and isinstance(expected, Decoded):
        return relative(found.pixels, expected.pixels)
    if isinstance(expected, Ranked | Counted):
        return 0.0  # the losses show it, without near ties
    if not (isinstance(found, Moved) and isinstance(expected, Moved)):
        return relative(found, expected)
    if found.found is None or expected.found is None or found.found.shape != expected.found.shape:
        return 0.0 if found.found is expected.found else math.inf
    scale, own = (float(np.abs(each.rule).max()) or 1.0 for each in (found, expected))
    apart = np.abs((found.found - found.rule) / scale - (expected.found - expected.rule) / own)
    left = np.maximum(apart - found.rounding / scale, 0.0)  # rounding to its precision allows no less
    return float(left.max(initial=0)) if np.isfinite(left).all() else math.inf
