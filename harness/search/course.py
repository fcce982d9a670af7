"""How far a contestant's search has come: its proposals, which of them go on, and which one is the best.

All of it follows from the results so far. So it is worked out anew after each round, and after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.search import budget
from harness.search.budget import Rung
from harness.search.config import SearchConfig
from harness.search.proposals import WORST_PCT, Known, Values, propose
from harness.spec.trial import Trial

Make = Callable[[Values, int], Trial | None]
"""Values and epochs -> the proposal's trial; None if the values are impossible together."""


@dataclass(frozen=True)
class End:
    """How a proposal's trial ended: its validation error in percent and validation loss; no error if it does not count."""

    error: tuple[float, float] | None


Ends = Callable[[Trial], End | None]
"""A proposal's trial -> how it ended; None while it has not."""


@dataclass(frozen=True)
class Proposal:
    """`values`: for each searched key. `trials`: one for each rung that it has come to, the shortest first."""

    values: Values
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Course:
    """A contestant's search. `best`: its best proposal, once all have ended and if any counts."""

    proposals: tuple[Proposal, ...]
    best: Proposal | None = None
    is_over: bool = False
    is_exhausted: bool = False  # the space had no other proposal, so the budget was not used up


def rungs_of(config: SearchConfig, epochs: int) -> tuple[Rung, ...]:
    """What the budget buys where a whole training has `epochs` epochs; empty if not a single one."""
    if config.method == "halving":
        count = config.trials or budget.affordable_halving(config.epochs or 0, epochs, config.first, config.factor)
        return budget.halving(count, epochs, config.first, config.factor) if count else ()
    count = config.trials or budget.affordable(config.epochs or 0, epochs)
    return budget.at_once(count, epochs) if count else ()


def course(config: SearchConfig, seed: int, rungs: Sequence[Rung], make: Make, ends: Ends) -> Course:
    """The proposals that are known now. Once all trials of these have ended, calling it again gives more, or the best."""
    proposals, is_exhausted = _proposed(config, seed, rungs[0], make, ends)
    if any(ends(each.trials[-1]) is None for each in proposals):
        return Course(proposals, is_exhausted=is_exhausted)
    for rung in rungs[1:]:
        for place in _best(proposals, ends, rung.count):
            if trial := make(proposals[place].values, rung.epochs):
                longer = replace(proposals[place], trials=(*proposals[place].trials, trial))
                proposals = (*proposals[:place], longer, *proposals[place + 1 :])
        if any(ends(each.trials[-1]) is None for each in proposals):
            return Course(proposals, is_exhausted=is_exhausted)
    chosen = _best(proposals, ends, 1)
    return Course(proposals, proposals[chosen[0]] if chosen else None, True, is_exhausted)


def _proposed(config: SearchConfig, seed: int, rung: Rung, make: Make, ends: Ends) -> tuple[tuple[Proposal, ...], bool]:
    """The proposals of the first rung, and whether the space has no other.

    Optuna makes some at a time, and is told the results of all before these.
    """
    known: dict[str, Trial | None] = {}

    def trial(values: Values) -> Trial | None:
        if (key := repr(values)) not in known:
            known[key] = make(values, rung.epochs)
        return known[key]

    def distinct(values: Values) -> str | None:
        made = trial(values)
        return made and made.id

    size = config.together if config.method == "optuna" else rung.count
    made: list[Proposal] = []
    while len(made) < rung.count:
        before = [Known(each.values, _told(ends(each.trials[0]))) for each in made]
        for _ in range(min(size, rung.count - len(made))):
            values = propose(config.method, config.space, seed, before, distinct)
            found = None if values is None else trial(values)
            if values is None or found is None:  # the space has no other
                return tuple(made), True
            made.append(Proposal(values, (found,)))
            before.append(Known(values, None))
        if any(ends(each.trials[0]) is None for each in made[-size:]):
            break
    return tuple(made), False


def _best(proposals: Sequence[Proposal], ends: Ends, count: int) -> list[int]:
    """The places of the `count` best of those that have come furthest and count."""
    furthest = max((len(each.trials) for each in proposals), default=0)
    there: list[int] = []
    errors: list[tuple[float, float]] = []
    for place, each in enumerate(proposals):
        end = ends(each.trials[-1])
        if len(each.trials) == furthest and end and end.error:
            there.append(place)
            errors.append(end.error)
    return [there[index] for index in budget.best(errors, count)]


def _told(end: End | None) -> float | None:
    """What Optuna is told of a proposal: its validation error; None while it is not known."""
    return end and (end.error[0] if end.error else WORST_PCT)
