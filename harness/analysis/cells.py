"""Cells: trials that differ only in the seed. Their figures over seeds, and by how much one cell differs from another.

A seed is one observation: the epochs of one trial are not independent repetitions of it. So a cell of one seed has no
interval, and takes part in no test.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

from harness import data, progress
from harness.analysis.labels import setting
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.journal.results import Result, summarise
from harness.journal.retested import completed
from harness.spec.trial import Trial
from harness.stats import Difference, Summary, adjust, difference, summary

ALPHA = 0.05
_DECIDING = (
    "model.kind",
    "model.decoder",
    "train.lr_decay.kind",
)  # on which other settings depend: see harness.suite.unused


class Metric(NamedTuple):
    """A figure of `Result`: its name and scale as shown to people, and whether equal seeds make it a pair.

    A seed sets initial weights, order and shifts, so errors with the same seed are pairs; times and bytes are not.
    Less is better for all of them except `img_per_s`.
    """

    title: str
    scale: float = 1.0
    paired: bool = False


METRICS = {
    "test_err_pct": Metric("test error %", paired=True),
    "best_test_err_pct": Metric("best epoch's test error %", paired=True),  # the epoch with the lowest validation error
    "val_err_pct": Metric("validation error %", paired=True),
    "test_loss": Metric("test loss", paired=True),
    "epoch_s": Metric("s/epoch"),
    "img_per_s": Metric("images/s"),
    "compile_s": Metric("compile s"),
    "peak_bytes": Metric("peak MB", 1e-6),
    "joules_per_epoch": Metric("J/epoch"),
}


@dataclass(frozen=True)
class Cell:
    """The results of one cell, in the plan's order; `trial` is its first. `counted`: finished and without a flaw."""

    trial: Trial
    results: tuple[Result, ...]

    @property
    def impl(self) -> str:
        return self.trial.impl

    @property
    def params(self) -> dict[str, Any]:
        return self.trial.params

    @property
    def name(self) -> str:
        """ "torch, routing 3"."""
        return ", ".join(filter(None, (self.impl, setting(self.params))))

    @cached_property
    def counted(self) -> tuple[Result, ...]:
        return tuple(each for each in self.results if each.status == "finished" and not each.flaw)

    @property
    def seeds(self) -> str:
        """ "3", or "2 of 3" if some do not count."""
        counted, planned = len(self.counted), len(self.results)
        return str(planned) if counted == planned else f"{counted} of {planned}"

    def values(self, metric: str) -> dict[int, float]:
        """Seed -> value, for the seeds that have one."""
        found = {result.seed: getattr(result, metric, None) for result in self.counted}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def summary(self, metric: str) -> Summary | None:
        """The metric over the seeds, in the unit of `Result`; None if no seed has a value."""
        return summary(list(self.values(metric).values()))

    @cached_property
    def resolution_pct(self) -> float:
        """The smallest step between test errors: one image of the test set, in percent."""
        return 100 / data.sizes(self.trial.data)[2]

    def to_json(self) -> dict[str, Any]:
        summaries = {name: self.summary(name) for name in METRICS}
        return {
            "impl": self.impl,
            "params": self.params,
            "seeds": [result.seed for result in self.counted],
            "planned": len(self.results),
            "figures": {name: asdict(found) for name, found in summaries.items() if found},
        }


def of_run(journal: Journal) -> list[Cell]:
    """The cells of the latest plan, in its order. Raises `UserError` without a run, or for a damaged journal."""
    planned = [str(each["id"]) for each in require_run(journal.run_dir)["trials"]]
    trials: dict[str, Trial] = {}
    results: list[Result] = []
    for id in progress.track(planned, f"reading {journal.run_dir.name}"):
        trials[id] = journal.trial(id)
        events = journal.events(id)
        results.append(completed(journal, summarise(trials[id], events), events))
    return of_results(trials, results)


def of_results(trials: Mapping[str, Trial], results: Sequence[Result]) -> list[Cell]:
    """The same, from results; `trials` is by id."""
    return [Cell(trials[cell[0].id], tuple(cell)) for cell in grouped(results)]


@dataclass(frozen=True)
class Change:
    """Two cells of one run that differ only in `key`; `test` is for `metric` in `b` minus `metric` in `a`."""

    metric: str
    key: str  # a grid's key, or "impl"
    a: Cell
    b: Cell
    test: Difference

    @property
    def significant(self) -> bool:
        """Whether the difference is significant after the correction for all tests made together."""
        return self.test.adjusted_p is not None and self.test.adjusted_p < ALPHA

    def value(self, cell: Cell) -> Any:
        return cell.impl if self.key == "impl" else cell.params[self.key]

    @property
    def others(self) -> dict[str, Any]:
        """Their other settings, the implementation first; for two kinds of model also settings that only one has."""
        rest = {"impl": self.a.impl, **self.a.params, **self.b.params}
        return {key: value for key, value in rest.items() if key != self.key}

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "key": self.key,
            "from": self.value(self.a),
            "to": self.value(self.b),
            "others": self.others,
            "significant": self.significant,
            **asdict(self.test),
        }


def changes(cells: Sequence[Cell], metric: str, *, impls: bool) -> list[Change]:
    """Tests every two cells that have the metric and differ in one setting; Holm's correction covers all of them.

    Args:
        impls: whether two implementations in one setting count as a pair. About their test errors
            `harness.analysis.equivalence` asks another question: not whether they differ, but whether they are equal
            within a margin.
    """
    pairs = [
        (key, a, b)
        for a, b in itertools.combinations(cells, 2)
        for key in differing(a, b)
        if (impls or key != "impl") and a.values(metric) and b.values(metric)
    ]
    tests = adjust([contrast(a, b, metric) for _, a, b in pairs], ALPHA)
    return [Change(metric, key, a, b, test) for (key, a, b), test in zip(pairs, tests, strict=True)]


def contrast(a: Cell, b: Cell, metric: str) -> Difference:
    """The metric in `b` minus that in `a`: paired if that makes sense and both have the same seeds."""
    of_a, of_b = a.values(metric), b.values(metric)
    paired = METRICS[metric].paired and of_a.keys() == of_b.keys()
    resolution = max(a.resolution_pct, b.resolution_pct) if metric in ("test_err_pct", "best_test_err_pct") else 0.0
    sides = ([side[seed] for seed in sorted(side)] for side in (of_a, of_b))
    return difference(*sides, paired=paired, alpha=ALPHA, resolution=resolution)


def differing(a: Cell, b: Cell) -> Iterator[str]:
    """The one setting in which the two differ; nothing if there are several. Some values have settings of their own."""
    of_a, of_b = ({"impl": cell.impl, **cell.params} for cell in (a, b))
    differing = [key for key in of_a if key in of_b and of_a[key] != of_b[key]]
    if len(differing) == 1 and (differing[0] in _DECIDING or of_a.keys() == of_b.keys()):
        yield differing[0]


def grouped(results: Sequence[Result]) -> list[list[Result]]:
    """Groups of results that differ only in the seed, in the order of each group's first; without a search's proposals."""
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in (each for each in results if each.phase != "proposal"):
        grouped.setdefault((result.impl, repr(result.params)), []).append(result)
    return list(grouped.values())
