"""What a search has found: for each contestant its budget, the best proposal, and how that did with seeds of its own.

The best of many proposals looks better on the images that it was chosen by than it is. So it is trained anew with fresh
seeds, and these alone are tested on the test images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.analysis.labels import setting
from harness.journal.journal import Journal
from harness.journal.results import Result, summarise
from harness.stats import Summary, summary

_EDGE = 0.05
"""The share of a range, at either end, in which the best one suggests that a wider range has a better one."""
_ENOUGH = 4  # proposals from which the best of the first half says something


@dataclass(frozen=True)
class Contestant:
    """A contestant's search. `half_pct`: the best validation error of the first half of its proposals."""

    impl: str
    params: dict[str, Any]
    proposals: int
    failed: int  # of these: they failed, or did not count
    epochs: int  # trained by all proposals together
    is_over: bool
    best: str | None  # the best proposal's trial
    values: dict[str, Any]  # of it
    val_err_pct: float | None  # of it, after its last epoch
    half_pct: float | None
    at_edge: dict[str, str]  # searched key -> "lower" or "upper", where the best value is at an end of its range
    seeds: tuple[int, ...]  # those that confirm the best, as far as they count
    planned: int  # how many confirm it
    confirmed_val: Summary | None
    confirmed_test: Summary | None

    @property
    def name(self) -> str:
        """ "torch, routing 3"."""
        return ", ".join(filter(None, (self.impl, setting(self.params))))

    def to_json(self) -> dict[str, Any]:
        """Its entry in `run --json` and `report --json`."""
        document = asdict(self)
        confirmed = {"val_err_pct": document.pop("confirmed_val"), "test_err_pct": document.pop("confirmed_test")}
        return document | {"seeds": list(self.seeds), "confirmed": confirmed}


@dataclass(frozen=True)
class Search:
    """A run's search: see `docs/best-settings.md`."""

    method: str
    seed: int
    space: dict[str, Any]
    trials: int | None  # the budget of each contestant: proposals,
    epochs: int | None  # or epochs of all of them together
    confirm: list[int]
    contestants: list[Contestant]

    @property
    def lost(self) -> list[str]:
        """Contestants of which no proposal counts, so that nothing is known about them."""
        return [each.name for each in self.contestants if each.best is None]

    @property
    def budget(self) -> str:
        """ "12 proposals"."""
        return f"{self.trials} proposals" if self.trials else f"{self.epochs} epochs"

    def to_json(self) -> dict[str, Any]:
        document = {key: value for key, value in vars(self).items() if key != "contestants"}
        return document | {"contestants": [each.to_json() for each in self.contestants]}


def of_journal(journal: Journal) -> Search | None:
    """The search of the latest plan; None if it has none. Raises `UserError` for a damaged journal."""
    document: dict[str, Any] | None = journal.plan().get("search")
    if not document:
        return None

    def result(id: str) -> Result:
        return summarise(journal.trial(id), journal.events(id))

    found = [_contestant(each, document["space"], result) for each in document["contestants"]]
    names = ("method", "seed", "space", "trials", "epochs", "confirm")
    return Search(**{name: document[name] for name in names}, contestants=found)


def _contestant(document: Mapping[str, Any], space: Mapping[str, Any], result: Callable[[str], Result]) -> Contestant:
    proposals = [(each["values"], [result(id) for id in each["trials"]]) for each in document["proposals"]]
    last = [results[-1] for _, results in proposals]
    chosen = next((place for place, each in enumerate(last) if each.id == document["best"]), None)
    values: dict[str, Any] = {} if chosen is None else dict(proposals[chosen][0])
    confirmations = [result(id) for id in document["confirmations"]]
    counted = [each for each in confirmations if each.status == "finished" and not each.flaw]
    is_even = len({len(results) for _, results in proposals}) == 1  # in halving, epochs differ
    first = [error for each in last[: len(last) // 2] if (error := _error(each)) is not None]
    return Contestant(
        impl=document["impl"],
        params=document["params"],
        proposals=len(proposals),
        failed=sum(each.status == "failed" or bool(each.flaw) for each in last),
        epochs=sum(each.epochs_trained for each in last),
        is_over=document["is_over"],
        best=document["best"],
        values=values,
        val_err_pct=None if chosen is None else last[chosen].val_err_pct,
        half_pct=min(first, default=None) if is_even and document["is_over"] and len(last) >= _ENOUGH else None,
        at_edge={key: edge for key, value in values.items() if (edge := _edge(value, space[key]))},
        seeds=tuple(each.seed for each in counted),
        planned=len(confirmations),
        confirmed_val=_over(each.val_err_pct for each in counted),
        confirmed_test=_over(each.test_err_pct for each in counted),
    )


def _error(result: Result) -> float | None:
    return result.val_err_pct if result.status == "finished" and not result.flaw else None


def _over(values: Iterable[float | None]) -> Summary | None:
    return summary([value for value in values if value is not None])


def _edge(value: Any, form: Mapping[str, Sequence[float]] | Sequence[Any]) -> str | None:
    """Which end of its range a value is at; None in the middle, or for a list of values."""
    if not isinstance(form, Mapping):
        return None
    [(kind, (low, high))] = form.items()
    if kind == "log":
        value, low, high = (math.log(each) for each in (value, low, high))
    share = (value - low) / (high - low)
    return "lower" if share <= _EDGE else "upper" if share >= 1 - _EDGE else None
