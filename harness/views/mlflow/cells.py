"""A cell of several seeds in MLflow: the parent run of its trials, with their mean and its interval.

Pure functions of the journal's content, like `harness.views.mlflow.trials`. A metric's step is the number of seeds
in it, in the order in which they ended, so that a longer journal adds steps and changes none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.analysis import labels
from harness.analysis.cells import METRICS, Cell, of_run
from harness.events import ResultEvent, TrialEvent
from harness.journal.journal import Journal
from harness.stats import summary
from harness.views.mlflow import trials as view

_NAMES = {"peak_bytes": "peak_mem_mb"}  # as in trials; other metrics keep their name
_SPREADS = ("sd", "low", "high")


@dataclass(frozen=True)
class Parent:
    """The parent run of a cell's trials. `ended`: seed -> end time, for the trials that have ended."""

    key: str
    cell: Cell
    ended: dict[int, int]  # milliseconds since 1970

    @property
    def trial_ids(self) -> list[str]:
        return [result.id for result in self.cell.results]

    @property
    def run_name(self) -> str:
        """At most 20 characters: `torch r3 mean`."""
        return labels.short_name(self.cell.trial, " mean")

    @property
    def params(self) -> dict[str, str]:
        """What the trials have in common."""
        return {key: value for key, value in view.params(self.cell.trial).items() if key != "seed"}

    @property
    def ended_ms(self) -> int:
        return max(self.ended.values(), default=0)

    def status(self, live: bool) -> str:
        """Finished if all its trials are, failed if any did, else running or interrupted."""
        states = {result.status for result in self.cell.results}
        if states == {"finished"}:
            return "FINISHED"
        return "RUNNING" if live else "FAILED" if "failed" in states else "KILLED"

    @cached_property
    def rows(self) -> list[view.Row]:
        """For each metric `..._mean`; from two seeds also `..._sd` and the 95% interval `..._low` to `..._high`."""
        order = sorted(self.cell.counted, key=lambda result: (self.ended[result.seed], result.seed))
        rows: list[view.Row] = []
        for count, last in enumerate(order, start=1):
            at_ms, seeds = self.ended[last.seed], {result.seed for result in order[:count]}
            rows.append(view.row("seeds", count, at_ms, count))
            for name, metric in METRICS.items():
                found = summary([value for seed, value in self.cell.values(name).items() if seed in seeds])
                for part in ("mean", *_SPREADS) if found else ():
                    if (value := getattr(found, part)) is not None:
                        key = f"{_NAMES.get(name, name)}_{part}"
                        rows.append(view.row(key, value * metric.scale, at_ms, count))
        return rows

    @property
    def steps(self) -> dict[str, str]:
        """Step -> a digest of its rows: a step that was sent must not change, or the run is void."""
        found: dict[str, list[view.Row]] = {}
        for row in self.rows:
            found.setdefault(str(row.step), []).append(row)
        return {step: _digest(rows) for step, rows in found.items()}

    @property
    def tags(self) -> dict[str, str]:
        """What the cell is, and its figures in words."""
        trial = self.cell.trial
        lines = {name: found for name in METRICS if (found := self._line(name))}
        text = "\n".join(f"| {METRICS[name].title} | {line} |" for name, line in lines.items())
        tags: Mapping[str, Any] = {
            "mlflow.runColor": labels.color(trial.impl),
            "mlflow.note.content": f"Mean over seeds ({self.cell.seeds}) and its 95% interval.\n\n| | |\n|---|---|\n{text}",
            "capsbench.kind": "cell",
            "capsbench.suite": trial.suite,
            "impl": trial.impl,
            "profile": trial.model.variant,
            "seeds": ", ".join(str(result.seed) for result in self.cell.counted),
            **{_NAMES.get(name, name): line for name, line in lines.items()},
        }
        return view.tidy(tags)

    def digest(self, live: bool) -> str:
        """A digest of everything sent: if it has not changed, there is nothing to send."""
        return _digest([self.rows, self.tags, self.status(live), self.trial_ids])

    def _line(self, name: str) -> str | None:
        """ "0.28, 0.24 to 0.32"; "0.28 (one seed)"."""
        found, scale = self.cell.summary(name), METRICS[name].scale
        if found is None:
            return None
        if found.low is None or found.high is None:
            return f"{found.mean * scale:.5g} ({'one seed' if found.n == 1 else 'the same with every seed'})"
        return f"{found.mean * scale:.5g}, {found.low * scale:.5g} to {found.high * scale:.5g}"


def parents_of(journal: Journal) -> dict[str, Parent]:
    """Key -> parent, for the latest plan's cells with several seeds; with one seed there is nothing to aggregate."""
    found: dict[str, Parent] = {}
    for cell in of_run(journal) if journal.plan().get("trials") else ():
        if len(cell.results) > 1:
            ended = {result.seed: _ended_ms(journal.events(result.id)) for result in cell.counted}
            key = f"cell-{_digest([cell.impl, cell.params])}"
            found[key] = Parent(key, cell, ended)
    return found


def _ended_ms(events: list[TrialEvent]) -> int:
    return max(view.time_ms(event) for event in events if isinstance(event, ResultEvent))


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
