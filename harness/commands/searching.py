"""A search as a part of a plan: which trials there are now, and what is still to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cost.estimate import estimate_s
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.results import Result, summarise
from harness.search import proposals
from harness.search.config import SearchConfig
from harness.search.course import End, rungs_of
from harness.spec.trial import Trial
from harness.suite.searching import MOST, Contestant, contestants, describe
from harness.suite.suite import Suite
from harness.text import duration


@dataclass(frozen=True)
class Searched:
    """A suite's search as far as it has come. `left`: epochs of trials that are not known yet, for each contestant."""

    suite: Suite
    contestants: tuple[Contestant, ...]
    left: tuple[int, ...]
    more: int
    """How many trials are still to come."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials so far, each once: proposals first, those of one number one after the other."""
        columns = [[*each.trials] for each in self.contestants]
        longest = max(map(len, columns), default=0)
        rows = (column[place] for place in range(longest) for column in columns if place < len(column))
        return tuple({trial.id: trial for trial in sorted(rows, key=lambda trial: not trial.is_proposal)}.values())

    def left_s(self, known: Sequence[tuple[Trial, dict[str, Any]]]) -> float | None:
        """Seconds of all that is to come, one after another; None if that is not known."""
        total = 0.0
        for each, epochs in zip(self.contestants, self.left, strict=True):
            first = next(each.trials, None)
            seconds = first and estimate_s(first, known)
            if epochs and (first is None or seconds is None):
                return None
            total += epochs * seconds / first.train.epochs if first and seconds else 0.0
        return total

    def to_json(self) -> dict[str, Any]:
        """The search in plan.json, and in `plan --json`."""
        return {**describe(self.suite), "contestants": [each.to_json() for each in self.contestants]}


def require_fitting(config: SearchConfig, fresh: bool, go_on_from: Path | None) -> None:
    """Raises `UserError` for options that contradict the search, and if what its method needs is not installed."""
    if go_on_from is not None:
        raise UserError("--go-on-from: a search goes on from what its own run has; drop the option, or drop search")
    if fresh and config.method == "halving":
        raise UserError(
            "--fresh: with search.method halving, the best go on from what they have; drop the option, or use random"
        )
    proposals.require(config.method)


def look(
    suite: Suite, gpus_available: int, fingerprint: Callable[[str], Mapping[str, Any]], journal: Journal
) -> Searched:
    """The search as far as the journal says. Raises `UserError` if trials need more GPUs than there are."""
    config = suite.search
    assert config is not None
    there, known = {*journal.trial_ids()}, dict[str, End | None]()

    def ends(trial: Trial) -> End | None:
        if trial.id not in known:
            result = summarise(trial, journal.events(trial.id)) if trial.id in there else None
            known[trial.id] = result and end_of(result)
        return known[trial.id]

    found = contestants(suite, gpus_available, fingerprint, ends)
    left: list[int] = []
    more = 0
    for cell, each in zip(suite.cells(), found, strict=True):
        epochs = cell.sections.train.epochs
        its = each.course
        rungs = () if its.is_over else rungs_of(config, epochs)
        seeds = 0 if its.is_over else len(config.confirm.seed)
        most = len(its.proposals) if its.is_exhausted else MOST
        missing = [
            min(rung.count, most) - sum(len(one.trials) > place for one in its.proposals)
            for place, rung in enumerate(rungs)
        ]
        before = [0, *(rung.epochs for rung in rungs)]
        new = (count * (rung.epochs - old) for count, rung, old in zip(missing, rungs, before, strict=False))
        left.append(sum(new) + seeds * epochs)
        more += sum(missing) + seeds
    return Searched(suite, found, tuple(left), more)


def end_of(result: Result) -> End | None:
    """How a proposal ended, for the search: None if it has not; without an error if it failed or has a flaw."""
    if result.status not in ("finished", "failed"):
        return None
    if result.status == "failed" or result.flaw or result.val_err_pct is None:
        return End(None)
    loss = result.epochs[-1].get("val_loss")
    return End((result.val_err_pct, math.inf if loss is None else float(loss)))


def sentence(searched: Searched, left_s: float | None) -> str:
    """The search in a line: method, budget, what comes after, and how far it is."""
    config = searched.suite.search
    assert config is not None
    budget = f"{config.trials} proposals" if config.trials else f"{config.epochs} epochs"
    count = len(searched.contestants)
    whom = f"for each of {count} contestants" if count > 1 else "for one contestant"
    seeds = ", ".join(map(str, config.confirm.seed))
    said = f"Search ({config.method}): {budget} {whom}, judged on validation images; then the best with seed {seeds}"
    over = sum(each.course.is_over for each in searched.contestants)
    if not searched.more:
        return f"{said}. It is over."
    done = f", of {over} of them it is over" if over else ""
    when = f", about {duration(left_s)} one after another" if left_s is not None else ""
    return f"{said}. To come{done}: {searched.more} trials that are not known yet{when}."
