"""From a run's journal to points with intervals, curves over one setting each, and one cost model per framework."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness import data
from harness.analysis.cells import grouped
from harness.analysis.labels import setting
from harness.cost.fit import CostModel, TimedTrial, fit
from harness.errors import UserError
from harness.journal.journal import Journal
from harness.journal.results import Result, summarise
from harness.spec import kinds
from harness.spec.trial import Trial
from harness.stats import median_interval


class Line(NamedTuple):
    """What one cost model is for: one implementation of one kind of model, on one device."""

    impl: str
    precision: str
    device: str
    cpus: int
    kind: str

    def __str__(self) -> str:
        unusual = [each for each in (self.precision, self.kind) if each not in ("fp32", kinds.DEFAULT)]
        return " ".join([self.impl, *unusual])


@dataclass(frozen=True)
class Point:
    """One cell's cost: the median of its steady epochs, divided by their steps.

    `low_s` to `high_s` is the median's 95% interval; with fewer than six epochs it is their whole range.
    """

    line: Line
    trial: Trial  # the one with the cell's first seed
    step_s: float
    low_s: float
    high_s: float
    epochs: int
    steps: int  # per epoch


@dataclass(frozen=True)
class Report:
    """Points in the plan's order; `errors` are for each point when predicted from the others of its line."""

    run_dir: Path
    points: list[Point]
    models: dict[Line, CostModel]
    errors: list[float | None]
    keys: list[str]  # numeric settings that the run varies
    left_out: list[str]  # which trials have no timing, and why
    cpu: str


def make_report(run_dir: Path) -> Report:
    """The costs of the latest plan; no points if nothing was timed. Raises `UserError` for a folder without a run."""
    journal = Journal(run_dir)
    planned = [str(each["id"]) for each in journal.plan().get("trials", ())]
    if not planned:
        raise UserError(f"{run_dir} is not a run directory: it has no plan.json. Give the folder that `run` named.")
    trials = {id: journal.trial(id) for id in planned}
    results = [summarise(trial, journal.events(trial.id)) for trial in trials.values()]
    points: list[Point] = []
    left_out: list[str] = []
    for cell in grouped(results):
        point = _point(cell, trials)
        if point:
            points.append(point)
        else:
            why = cell[0].cause or cell[0].timing_withheld or cell[0].status
            left_out.append(f"{cell[0].impl} {setting(cell[0].params)}: {why}".replace(" : ", ": "))
    models: dict[Line, CostModel] = {}
    errors: dict[int, float] = {}
    for line in dict.fromkeys(point.line for point in points):
        own = [index for index, point in enumerate(points) if point.line == line]
        measured = [points[index] for index in own]
        model = fit([timed(point) for point in measured])
        if model:
            models[line] = model
            errors |= dict(zip(own, model.leave_one_out, strict=True))
    return Report(
        run_dir, points, models, [errors.get(index) for index in range(len(points))], _keys(points), left_out,
        str(journal.environment().get("cpu", "an unknown CPU")),
    )  # fmt: skip


def _point(cell: Sequence[Result], trials: dict[str, Trial]) -> Point | None:
    seconds: list[float] = []
    for result in cell:
        steady = [epoch for epoch in result.epochs if not epoch["warmup"]] or result.epochs
        if result.status == "finished" and not result.timing_withheld:
            seconds += [float(epoch["epoch_s"]) for epoch in steady]
    if not seconds:
        return None
    trial = trials[cell[0].id]
    steps = math.ceil(data.sizes(trial.data)[0] / trial.train.batch)
    low, high = median_interval(seconds) or (min(seconds), max(seconds))
    line = Line(trial.impl, trial.runtime.precision, "gpu" if trial.gpus else "cpu", trial.cpus, trial.model.kind)
    median = statistics.median(seconds)
    return Point(line, trial, median / steps, low / steps, high / steps, len(seconds), steps)


def _keys(points: Sequence[Point]) -> list[str]:
    """The settings with several values, all of which are numbers."""
    found: dict[str, set[Any]] = {}
    for point in points:
        for key, value in point.trial.params.items():
            found.setdefault(key, set()).add(value)
    return [
        key
        for key, values in found.items()
        if len(values) > 1 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    ]


def curves(report: Report, key: str) -> dict[str, list[Point]]:
    """Name -> points by increasing `key`, with all else equal; a curve has at least two points."""
    grouped: dict[tuple[Line, str], list[Point]] = {}
    for point in report.points:
        if key not in point.trial.params:  # a setting of another kind of model
            continue
        others = {name: value for name, value in point.trial.params.items() if name != key}
        grouped.setdefault((point.line, setting(others)), []).append(point)
    found = {group: points for group, points in grouped.items() if len(points) > 1}
    several = len({others for _, others in found}) > 1
    return {
        f"{line}, {others}" if several and others else str(line): sorted(points, key=lambda p: p.trial.params[key])
        for (line, others), points in found.items()
    }


def timed(point: Point) -> TimedTrial:
    return TimedTrial(point.trial.model, point.trial.train.batch, point.step_s)


def to_json(report: Report) -> dict[str, Any]:
    """The output of `report --json`, except for the figures."""
    return {
        "run_dir": str(report.run_dir),
        "points": [
            {
                **point.line._asdict(),
                "params": point.trial.params,
                "batch": point.trial.train.batch,
                "step_s": point.step_s,
                "low_s": point.low_s,
                "high_s": point.high_s,
                "epochs": point.epochs,
                "steps": point.steps,
                "model_s": model.step_s(point.trial.model, point.trial.train.batch) if model else None,
                "leave_one_out": error,
            }
            for point, error in zip(report.points, report.errors, strict=True)
            for model in [report.models.get(point.line)]
        ],
        "models": [
            {
                **line._asdict(),
                "fixed": model.fixed,
                "algorithm": model.algorithm,
                "constants": model.constants,
                "worst": model.worst,
            }
            for line, model in report.models.items()
        ],
        "left_out": report.left_out,
    }
