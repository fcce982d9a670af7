"""A suite's search: what is wrong with it, and its contestants' trials as far as they are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from harness import data as datasets
from harness.errors import UserError
from harness.search.config import Dimension, SearchConfig
from harness.search.course import Course, Ends, Proposal, course, rungs_of
from harness.search.proposals import Values
from harness.spec.trial import Trial
from harness.suite import identity
from harness.suite.draft import Draft
from harness.suite.keys import AXES, BUDGETS, SEARCH, SPACE
from harness.suite.unused import idle_keys
from harness.suite.yaml import Problems

if TYPE_CHECKING:
    from harness.suite.suite import Cell, Suite

MOST = 1000
"""Proposals of a contestant."""
_OF_METHODS = {"together": "optuna", "first": "halving", "factor": "halving"}
_CONFIRMED = f"{SEARCH}.confirm.seed"


def check_alone(draft: Draft, values: Mapping[str, Any], grid: Mapping[str, Sequence[Any]], path: str) -> None:
    """Adds to the draft's problems what is wrong with the section as such, if there is one."""
    given = [key for key in draft.values if key.startswith(f"{SEARCH}.")]
    if not given:
        return

    def wrong(key: str, message: str) -> None:
        draft.problems.add(draft.place(key) or draft.place(given[0]) or path, draft.written(key), message)

    if SPACE not in given:
        wrong(SPACE, "missing; expected keys with ranges, such as {train.lr: {log: [1e-4, 1e-2]}}")
    budgets = [key for key in BUDGETS if values.get(key) is not None]
    if not budgets:
        wrong(
            BUDGETS[0],
            f"missing: a search needs a budget, the same for every contestant: {BUDGETS[0]}, the number of proposals, or "
            f"{BUDGETS[1]}, the epochs of all of them together",
        )
    elif len(budgets) > 1:
        wrong(BUDGETS[1], f"{BUDGETS[0]} is given at {draft.place(BUDGETS[0])}; keep one of the two")
    method = values.get(f"{SEARCH}.method", "random")
    for name, owner in _OF_METHODS.items():
        if (key := f"{SEARCH}.{name}") in given and method != owner:
            wrong(key, f"has no effect with method {method}; drop it, or set {SEARCH}.method to {owner}")
    for dimension in _space(values):
        if at := draft.place(dimension.key):
            wrong(f"{SPACE}.{dimension.key}", f"also set at {at}; keep one of the two")
    seeds = grid.get("seed", (0,))
    if len(seeds) > 1:
        wrong(
            "seed",
            f"found {len(seeds)} seeds; a search has one, for its proposals: the seeds of {_CONFIRMED} are for the best",
        )
    confirming = values.get(_CONFIRMED, SearchConfig().confirm.seed)
    if seeds[0] in confirming:
        wrong(
            _CONFIRMED if _CONFIRMED in given else "seed",
            f"{_CONFIRMED} has {seeds[0]}, the seed of the search: the best proposal was chosen with it; name others",
        )
    if len(set(confirming)) < len(confirming):
        wrong(_CONFIRMED, "a seed is there twice; drop one")
    if values.get("train.stop.on") == "test" or "test" in grid.get("train.stop.on", ()):
        wrong("train.stop.on", "found test, but a search sees no test images; expected validation")
    if "train.epochs" in grid and BUDGETS[0] in budgets:
        wrong("train.epochs", f"varied, so that {BUDGETS[0]} would be an unequal budget; give {BUDGETS[1]} instead")


def check_cells(suite: Suite) -> tuple[list[tuple[str, str]], list[Cell]]:
    """(key, message) for what is wrong with the search of the suite's contestants; and the cells at the ends of its ranges."""
    config, cells = _of(suite), suite.cells()
    wrong = [each for cell in cells for each in _unfit(config, cell)]
    tried: list[Cell] = []
    for cell in cells:
        always: list[tuple[str, str]] | None = None  # what is wrong with the first values, so with all
        for key, values in _ends(config.space):
            probe = suite.proposed(cell, values)
            tried.append(probe)
            found = [*probe.conflicts()]
            if always is None:
                always = found
                wrong += [(f"{SPACE}.{culprit}" if culprit in values else culprit, said) for culprit, said in found]
            for culprit, said in (each for each in found if each not in always):
                named = said if culprit == key else f"with {values[key]}, {culprit}: {said}"
                wrong.append((f"{SPACE}.{key}", named))
    idle = [idle_keys(each.sections) for each in tried]
    for dimension in config.space if tried else ():
        if all(dimension.key in each for each in idle):
            wrong.append((f"{SPACE}.{dimension.key}", "changes nothing in any trial of this suite; drop it"))
    return wrong, tried


def _unfit(config: SearchConfig, cell: Cell) -> Iterator[tuple[str, str]]:
    """Whether budget and images suffice for a search."""
    epochs = cell.sections.train.epochs
    rungs = rungs_of(config, epochs)
    if not rungs:
        need = f"does not suffice for one proposal of {epochs} epochs (train.epochs)"
        yield BUDGETS[1], f"found {config.epochs}, which {need}"
    elif rungs[0].count > MOST:
        yield BUDGETS[1], f"it buys {rungs[0].count:,} proposals for each contestant; at most {MOST:,} are allowed"
    if config.method == "halving" and config.first > epochs:
        yield f"{SEARCH}.first", f"found {config.first}, more than the {epochs} epochs of a training (train.epochs)"
    if not cell.unread and not _validation(cell):
        yield "data.validation", "there are no validation images, which decide a search; set data.validation"


@dataclass(frozen=True)
class Contestant:
    """A point of the grid with its search, and with the trials that confirm its best proposal."""

    impl: str
    params: dict[str, Any]
    course: Course
    confirmations: tuple[Trial, ...]

    @property
    def trials(self) -> Iterator[Trial]:
        """Proposals of shorter rungs first, then confirmations."""
        rungs = max((len(each.trials) for each in self.course.proposals), default=0)
        for rung in range(rungs):
            yield from (each.trials[rung] for each in self.course.proposals if len(each.trials) > rung)
        yield from self.confirmations

    def to_json(self) -> dict[str, Any]:
        """Its entry in plan.json."""
        best = self.course.best
        return {
            "impl": self.impl,
            "params": self.params,
            "proposals": [
                {"values": _plain(_effective(each)), "trials": [trial.id for trial in each.trials]}
                for each in self.course.proposals
            ],
            "is_over": self.course.is_over,
            "best": best and best.trials[-1].id,
            "confirmations": [trial.id for trial in self.confirmations],
        }


def contestants(
    suite: Suite, gpus_available: int, fingerprint: Callable[[str], Mapping[str, Any]], ends: Ends
) -> tuple[Contestant, ...]:
    """The search as far as it has come. Raises `UserError` if trials need more GPUs than there are."""
    config, seed, problems = _of(suite), int(suite.grid["seed"][0]), Problems()
    facts = {impl: fingerprint(impl) for impl in suite.grid["impl"]}
    sources = identity.Sources()
    found: list[Contestant] = []
    for cell in suite.cells():
        impl, epochs = str(cell.choice["impl"]), cell.sections.train.epochs
        maker = _Maker(suite, cell, suite.gpus(cell, gpus_available, problems), facts[impl], sources)
        problems.raise_any()
        its = course(config, seed, rungs_of(config, epochs), partial(maker.proposal, seed), ends)
        best = its.best.values if its.best else None
        confirmations = () if best is None else (maker.confirmation(each, best) for each in config.confirm.seed)
        params = {key: value for key, value in cell.choice.items() if key not in AXES}
        found.append(Contestant(impl, params, its, tuple(confirmations)))
    return tuple(found)


@dataclass(frozen=True)
class _Maker:
    """Makes the trials of a contestant."""

    suite: Suite
    cell: Cell
    gpus: int
    facts: Mapping[str, Any]
    sources: identity.Sources

    def proposal(self, seed: int, values: Values, epochs: int) -> Trial | None:
        """None if the values are impossible together."""
        one = self.suite.proposed(self.cell, values)
        if next(one.conflicts(), None):
            return None
        params = {key: value for key, value in one.choice.items() if key not in AXES}
        if _of(self.suite).method == "halving":  # where those of several rungs have the same values
            params["train.epochs"] = epochs
        train = (made := one.trial(self.gpus)).train.model_copy(update={"epochs": epochs})
        return self._named(made, {"seed": seed, "phase": "proposal", "params": params, "train": train})

    def confirmation(self, seed: int, values: Values) -> Trial:
        """Its `params` are those of the grid, so that contestants can be compared."""
        one = self.suite.proposed(self.cell, values)
        params = {key: value for key, value in self.cell.choice.items() if key not in AXES}
        return self._named(one.trial(self.gpus), {"seed": seed, "phase": "confirmation", "params": params})

    def _named(self, trial: Trial, more: Mapping[str, Any]) -> Trial:
        trial = trial.model_copy(update=dict(more))
        id = identity.trial_id(trial.model_dump(mode="json"), self.cell.entry, self.facts, self.sources)
        return trial.model_copy(update={"id": id})


def describe(suite: Suite) -> dict[str, Any]:
    """The search in plan.json, but for its contestants."""
    config = _of(suite)
    return {
        "method": config.method,
        "seed": suite.grid["seed"][0],
        "space": {each.key: _range(each) for each in config.space},
        "trials": config.trials,
        "epochs": config.epochs,
        "confirm": list(config.confirm.seed),
    }


def _of(suite: Suite) -> SearchConfig:
    assert suite.search is not None
    return suite.search


def _space(values: Mapping[str, Any]) -> Sequence[Dimension]:
    return values.get(SPACE) or ()


def _ends(space: Sequence[Dimension]) -> Iterator[tuple[str, Values]]:
    """Each end of each range and each value of each list, beside the first ones of the others; and the key that it is of."""
    first = {each.key: each.ends[0] for each in space}
    for each in space:
        for value in each.ends:
            yield each.key, {**first, each.key: value}


def _validation(cell: Cell) -> int:
    try:
        return datasets.sizes(cell.sections.data)[1]
    except UserError:  # told as a conflict
        return 1


def _range(dimension: Dimension) -> Any:
    if dimension.choices:
        return _plain(list(dimension.choices))
    return {"log" if dimension.is_log else "uniform": [dimension.low, dimension.high]}


def _effective(proposal: Proposal) -> Values:
    """Its values but for those that change nothing for this contestant."""
    return {key: value for key, value in proposal.values.items() if key in proposal.trials[0].params}


def _plain(value: Any) -> Any:
    """As JSON has it, with lists for tuples."""
    return json.loads(json.dumps(value))
