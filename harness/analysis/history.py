"""`capsbench history DIR...`: many runs of one suite, in the order they were made, and where error, time or memory stepped."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from harness import progress
from harness.analysis.cells import ALPHA, Cell, of_run
from harness.analysis.published import facts_of
from harness.analysis.seeds import left_out
from harness.errors import UserError, nearest
from harness.journal.directory import require_run
from harness.journal.journal import Journal
from harness.stats import Summary
from harness.stats.steps import FEWEST_RUNS, Step, steps

TRACKED = ("test_err_pct", "epoch_s", "peak_bytes")
"""The metrics of a history; less is better."""
_COSTS = ("epoch_s", "peak_bytes")  # metrics with a tolerance
_MACHINE = ("cpu", "cores", "gpus")

Key = tuple[str, str]  # an implementation and its setting


@dataclass(frozen=True)
class Run:
    """A run of the history: when it ended (seconds since 1970), and its cells in the plan's order."""

    path: Path
    run_id: str
    suite: str
    question: str
    made_by: str
    ended: float
    environment: Mapping[str, Any]
    cells: Mapping[Key, Cell]

    @property
    def commit(self) -> str | None:
        """The commit of the suite's own repository, or else of capsbench; a "+" stands for changes not committed."""
        for key in ("project", "git"):
            found: Any = self.environment.get(key)
            told = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
            if isinstance(commit := told.get("commit"), str) and commit:
                return commit[:9] + ("+" if told.get("dirty") else "")
        return None

    @cached_property
    def origin(self) -> dict[str, str]:
        """What of its surroundings can change a result or a time, by name, in words."""
        stated: Any = self.environment.get("versions")
        versions = cast("dict[str, Any]", stated) if isinstance(stated, dict) else {}
        found: dict[str, Any] = {"capsbench": self.made_by.removeprefix("capsbench "), "commit": self.commit}
        found |= {"Python": self.environment.get("python"), **versions}
        found |= {name: self.environment.get(name) for name in _MACHINE}
        return {name: _text(value) for name, value in found.items() if value not in (None, "", [])}

    def to_json(self) -> dict[str, Any]:
        return {
            "run_dir": str(self.path), "run_id": self.run_id or None, "ended": self.ended, "commit": self.commit,
            "made_by": self.made_by, "origin": self.origin,
        }  # fmt: skip


@dataclass(frozen=True)
class Series:
    """A metric of a cell over the runs that have it: `runs` are their places in the history."""

    metric: str
    cell: Cell
    runs: tuple[int, ...]
    found: tuple[Summary, ...]
    steps: tuple[Step, ...] = ()

    @property
    def values(self) -> list[float]:
        return [each.mean for each in self.found]

    @property
    def is_tested(self) -> bool:
        return len(self.runs) >= FEWEST_RUNS

    def levels(self) -> list[tuple[int, int, float]]:
        """The first and the last value of each stretch between steps, by place in the series, and its mean."""
        edges = [0, *(step.at for step in self.steps), len(self.runs)]
        stretches = itertools.pairwise(edges)
        return [(low, high - 1, math.fsum(self.values[low:high]) / (high - low)) for low, high in stretches]


@dataclass(frozen=True)
class Found:
    """A step of a series: the run with which it begins, and what else is new in that run."""

    series: Series
    step: Step
    run: int
    new: tuple[str, ...]  # "torch 2.9.0 -> 2.10.0"

    def to_json(self, runs: Sequence[Run]) -> dict[str, Any]:
        cell = self.series.cell
        return {
            "metric": self.series.metric, "impl": cell.impl, "params": cell.params,
            "run": self.run, "run_dir": str(runs[self.run].path), "commit": runs[self.run].commit,
            **asdict(self.step), "change_pct": self.step.change_pct, "new": list(self.new),
        }  # fmt: skip


@dataclass(frozen=True)
class History:
    """Runs of one suite in order, a series for each metric of each cell, and the steps that are shown.

    `problems`: what was given and could not be used, so that the request was wrong, at least in part.
    """

    suite: str
    question: str
    runs: list[Run]
    series: list[Series]
    found: list[Found]
    tested: int
    tolerance_pct: float
    problems: list[str]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The output of `history --json`."""
        return {
            "suite": self.suite,
            "question": self.question,
            "runs": [run.to_json() for run in self.runs],
            "series": [
                {
                    "metric": each.metric,
                    "impl": each.cell.impl,
                    "params": each.cell.params,
                    "runs": list(each.runs),
                    "values": each.values,
                    "seeds": [summary.n for summary in each.found],
                    "tested": each.is_tested,
                }
                for each in self.series
            ],
            "steps": [found.to_json(self.runs) for found in self.found],
            "tested": self.tested,
            "alpha": ALPHA,
            "tolerance_pct": self.tolerance_pct,
            "problems": self.problems,
            "warnings": self.warnings,
        }


def history(
    folders: Sequence[Path], suite: str | None = None, *, by_time: bool = True, tolerance_pct: float = 1.0
) -> History:
    """Reads the runs, and tests each series for steps; the chance that a flat history shows any is at most `ALPHA`.

    Args:
        folders: run directories, and folders that hold some.
        suite: which suite, if there are several; by default the one with most runs.
        by_time: in the order in which they ended; else as they were given.
        tolerance_pct: steps in time and memory that are smaller are not told.

    Raises `UserError` if nothing can be shown, or the tolerance is none.
    """
    if not (tolerance_pct >= 0 and math.isfinite(tolerance_pct)):
        raise UserError(f"--tolerance {tolerance_pct:g} is no tolerance: give percent, 0 or more")
    problems: list[str] = []
    runs = list(_read(folders, problems))
    name = _chosen(runs, suite, problems)
    runs = [run for run in runs if run.suite == name]
    if by_time:
        runs.sort(key=lambda run: run.ended)
    if not any(cell.counted for run in runs for cell in run.cells.values()):
        raise UserError("\n".join(problems) or "no run has a finished trial")
    if len(runs) == 1:
        problems.append(f"{runs[0].path} is the only run; a history takes two or more: give more folders")
    found = list(_series(runs))
    family = sum(each.is_tested for each in found)
    found = [_tested(each, ALPHA / max(1, family), tolerance_pct) for each in found]
    told = [_placed(runs, each, step) for each in found for step in each.steps]
    question = next((run.question for run in reversed(runs) if run.question), "")
    warnings = list(dict.fromkeys(_warnings(runs, found)))
    return History(name, question, runs, found, told, family, tolerance_pct, problems, warnings)


def _read(folders: Sequence[Path], problems: list[str]) -> Iterator[Run]:
    known: dict[str, Path] = {}
    for folder in progress.track(list(_opened(folders)), "reading runs"):
        try:
            run = _run(folder)
        except UserError as error:
            problems.append(str(error))
            continue
        if not any(cell.counted for cell in run.cells.values()):
            whys = list(dict.fromkeys(line.partition(": ")[2] for line in left_out(list(run.cells.values()))))
            problems.append(f"{folder} has no finished trial ({'; '.join(whys[:3])}); it is left out")
            continue
        name = run.run_id or str(folder.resolve())
        if name in known:
            problems.append(f"{folder} is the same run as {known[name]}; it is left out")
            continue
        known[name] = folder
        yield run


def _opened(folders: Sequence[Path]) -> Iterator[Path]:
    """Each folder, or the runs in it: at most two folders below, in the order of their names."""
    for folder in folders:
        if not (folder / "plan.json").exists() and folder.is_dir():
            inner = sorted({plan.parent for pattern in ("*", "*/*") for plan in folder.glob(f"{pattern}/plan.json")})
            if inner:
                yield from inner
                continue
        yield folder


def _run(folder: Path) -> Run:
    """Raises `UserError` for what is no run, or cannot be read."""
    plan, journal = require_run(folder), Journal(folder)
    cells = of_run(journal)
    times = [event.time for cell in cells for each in cell.results for event in journal.events(each.id) if event.time]
    ended = max(times, default=0.0) or (folder / "plan.json").stat().st_mtime
    return Run(
        folder,
        str(plan.get("run_id") or ""),
        str(plan["suite"]),
        str(plan.get("question") or ""),
        str(plan.get("made_by") or ""),
        ended,
        journal.environment(),
        {(cell.impl, json.dumps(cell.params, sort_keys=True)): cell for cell in cells},
    )


def _chosen(runs: Sequence[Run], suite: str | None, problems: list[str]) -> str:
    """The suite to show. Raises `UserError` if there is no run, or none of the suite that was asked for."""
    if not runs:
        raise UserError("\n".join(problems) or "give the folders of two or more runs")
    counts = Counter(run.suite for run in runs)
    if suite is not None:
        if suite not in counts:
            raise UserError(f'--suite: no run of "{suite}"{nearest(suite, counts)}')
        return suite
    chosen = max(counts, key=lambda name: counts[name])  # of equals, the one that was given first
    if others := [f"{name} ({run_count})" for name, run_count in counts.items() if name != chosen]:
        problems.append(
            f"runs of several suites: {chosen} ({counts[chosen]}) is shown, {', '.join(others)} left out; "
            "choose with --suite NAME"
        )
    return chosen


def _series(runs: Sequence[Run]) -> Iterator[Series]:
    """One for each metric of each cell that has a value in some run; the cells of the latest run first."""
    latest: dict[Key, Cell] = {}
    for run in reversed(runs):
        for key, cell in run.cells.items():
            latest.setdefault(key, cell)
    for metric in TRACKED:
        for key, cell in latest.items():
            summaries = [each.summary(metric) if (each := run.cells.get(key)) else None for run in runs]
            there = [(place, found) for place, found in enumerate(summaries) if found]
            if there:
                yield Series(metric, cell, tuple(place for place, _ in there), tuple(found for _, found in there))


def _tested(series: Series, alpha: float, tolerance_pct: float) -> Series:
    resolution = 0.0
    if series.metric == "test_err_pct":
        resolution = series.cell.resolution_pct / math.sqrt(max(each.n for each in series.found))
    found = steps(series.values, alpha, resolution)
    least = tolerance_pct if series.metric in _COSTS else 0.0
    kept = [step for step in found if abs(step.change_pct if step.change_pct is not None else math.inf) >= least]
    return Series(series.metric, series.cell, series.runs, series.found, tuple(kept))


def _placed(runs: Sequence[Run], series: Series, step: Step) -> Found:
    """The step, with what is new between the two runs that it stands between."""
    before, after = (series.runs[at] for at in (step.at - 1, step.at))
    return Found(series, step, after, tuple(_new(runs[before], runs[after], series.cell)))


def _new(before: Run, after: Run, cell: Cell) -> Iterator[str]:
    """What is not as it was: the surroundings, and the settings of the cell."""
    yield from _differing(before.origin, after.origin)
    key = (cell.impl, json.dumps(cell.params, sort_keys=True))
    facts = [facts_of(run.cells[key].trial) for run in (before, after)]
    for facts_of_run, run in zip(facts, (before, after), strict=True):
        trial = run.cells[key].trial
        facts_of_run |= {"cpus": trial.cpus, "gpus": trial.gpus}
        facts_of_run |= {"seeds": len(run.cells[key].counted)}
    kept = [{name: _text(value) for name, value in each.items() if name != "data.dir"} for each in facts]
    yield from _differing(*kept)


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}"


def _text(value: Any) -> str:
    return ", ".join(map(str, cast("list[Any]", value))) if isinstance(value, list) else str(value)


def _warnings(runs: Sequence[Run], series: Sequence[Series]) -> Iterator[str]:
    for name in _MACHINE:
        found = dict.fromkeys(run.origin.get(name, "unknown") for run in runs)
        if len(found) > 1:
            yield f"several machines ({name}: {'; '.join(found)}): a step in time or memory may be the machine's"
    for run in runs:
        if Journal(run.path).is_live():
            yield f"{run.path} is still running: what has finished counts"
        for line in left_out(list(run.cells.values())):
            yield f"{run.path}: {line}"
    short = [each for each in series if not each.is_tested]
    if short and len(runs) > 1:
        most = max(len(each.runs) for each in short)
        yield (
            f"{len(short)} of {len(series)} series were not tested for steps: that takes {FEWEST_RUNS} runs, and they have "
            f"{most} or fewer; `capsbench compare A B` compares two runs"
        )
