"""What is wrong with an implementation? The specification with a known fault in it, measured beside what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from harness import registry
from harness.parity.cnn_faults import faults_of
from harness.parity.faults import Fault
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
from harness.parity.mutate import Edit, discard, mutant
from harness.parity.setting import Setting
from harness.spec import ADAM_BETA1, Impl, ModelSpec, OptimSpec, Runtime

# In units of the ladder's tolerances:
FITS = 30.0  # the largest distance at which a fault can be said to be the one: it may amplify rounding
CLOSER = 0.05  # and it has to be this much closer than what has been explained so far; or to pass,
HALF = 0.5  # if only half as far, where that is not far itself
AS_GOOD = 10.0  # faults up to this many times as far as the closest one are indistinguishable from it
ROUNDING = 1e-3  # distances that say nothing about which is closer
STEPS = 4  # of the trajectory: every other batch is incomplete, and what that did shows in the next

Faults = tuple[Fault, ...]
_MEASURES: dict[str, Measure] = {
    "L2": capsules, "L3": one_batch, "L4": one_batch, "L5": single_steps, "L6": trajectory,
}  # fmt: skip


def suspects(ladder: Ladder) -> tuple[str, ...]:
    """The faults with which the specification gives what the ladder's implementation gives, as phrases, the closest first.

    Levels are explained from the lowest one that failed, each on top of what explained those below it: "a and b" has
    both faults. Empty where nothing known fits. The implementation is left with other weights and moments than it had,
    and may raise what it likes.
    """
    tolerances = {check.name: check.tolerance for check in ladder.checks}
    climbed, failed = ({check.level for check in ladder.checks if ok or not check.ok} for ok in (True, False))
    explained: list[Faults] = [()]
    for level, measure in _MEASURES.items():
        undecided = level in climbed and len(explained) > 1
        if level not in failed and not undecided:
            continue
        compared = _Compared(ladder, level, measure, tolerances)
        start, explained = compared.closest(explained)
        if start <= 1 or level not in failed:
            continue
        limit = min(FITS, max(1, CLOSER * start), HALF * start)
        more = [
            (*faults, fault) for faults in explained for fault in faults_of(ladder.at.model) if fault.level == level
        ]
        distance, extended = compared.closest(more, limit)
        if distance <= limit:
            explained = extended
        elif start > FITS or not any(explained):
            break
    return tuple(" and ".join(fault.says for fault in faults) for faults in explained if faults)


class _Compared:
    """What the ladder's implementation gives at one level, and how far from it the specification is with faults in it."""

    def __init__(self, ladder: Ladder, level: str, measure: Measure, tolerances: Mapping[str, float]) -> None:
        self.level, self.measure, self.tolerances = level, measure, tolerances
        self.at = replace(ladder.at, steps=min(STEPS, ladder.at.steps))
        self.found = {value.name: value.value for value in measure(ladder.impl, self.at)}

    def closest(self, candidates: Iterable[Faults], limit: float = math.inf) -> tuple[float, list[Faults]]:
        """The smallest distance, and all that are as good, the closest first; nothing beyond `limit` is good."""
        ranked = sorted(
            ((self._distance(faults, limit), index, faults) for index, faults in enumerate(candidates)),
            key=lambda each: each[:2],
        )
        best = ranked[0][0] if ranked else math.inf
        return best, [faults for distance, _, faults in ranked if distance <= min(AS_GOOD * best + ROUNDING, limit)]

    def _distance(self, faults: Faults, limit: float) -> float:
        """In units of the tolerances, the largest of all values; of those up to the first that is beyond `limit`."""
        impl = _specification(faults, self.at)
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
        """What a faulty specification gives; its steps are made with the gradients that were found.

        Where a gradient is next to epsilon, its rounding shows in how far a weight moves.
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
            if after is None:  # nothing to go by
                return {f"update.{name}@{step}": Moved(None, np.zeros(1), np.zeros(1)) for name in weights}
            earlier = moments.first[name].astype(np.float64) if moments else 0.0
            grads[name] = (np.asarray(after, np.float64) - ADAM_BETA1 * earlier) / (1 - ADAM_BETA1)
        impl._step(grads)
        after, own = impl.dump(), impl.dump_moments()
        return {f"update.{name}@{step}": moved(name, before, after, own, self.at.optim) for name in weights}


def _specification(faults: Faults, at: Setting) -> Impl | None:
    """The float64 specification with faults in it, ready to train; None if they cannot be had together."""
    try:
        make = _edited(tuple(edit for fault in faults for edit in fault.edits))
    except ValueError:
        return None
    impl = make(at.model, at.optim, Runtime(precision="fp64"))
    impl.stage(at.images, at.labels)
    impl.compile(at.batch)
    return impl


@cache
def _edited(edits: tuple[Edit, ...]) -> Callable[[ModelSpec, OptimSpec, Runtime], Impl]:
    entry = registry.resolve("numpy")
    copy = mutant(entry.module, edits)
    discard(copy)
    return getattr(copy, entry.class_name)


def _relative(found: object, expected: object) -> float:
    """The largest distance, relative to the largest value; what is not finite is alike where it is so."""
    if isinstance(expected, Ranked | Counted | Decoded):  # near ties, which say nothing
        return 0.0
    if isinstance(found, Moved) and isinstance(expected, Moved):
        found, expected = _departure(found), _departure(expected)
        scale = 1.0
    else:
        scale = None
    if found is None or expected is None:
        return 0.0 if found is expected else math.inf
    a, b = np.atleast_1d(np.asarray(found, np.float64)), np.atleast_1d(np.asarray(expected, np.float64))
    finite = np.isfinite(b)
    if a.shape != b.shape or (np.isfinite(a) != finite).any():
        return math.inf
    error, largest = (float(np.abs(x[finite]).max(initial=0)) for x in (a - b, b))
    return error / (scale or largest or 1.0)


def _departure(moved: Moved) -> np.ndarray | None:
    """From Adam's rule, relative to the rule's largest."""
    if moved.found is None:
        return None
    return (moved.found - moved.rule) / (float(np.abs(moved.rule).max()) or 1.0)
