"""The parts of the page, from one run or from several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.answer import Answer
from harness.analysis.cells import Cell
from harness.analysis.labels import setting
from harness.analysis.seeds import left_out
from harness.journal.journal import Journal
from harness.journal.results import Result
from harness.text import ended, number
from harness.views.report.charts import Chart, Data, Shown, charts_of
from harness.views.report.document import Document, Part
from harness.views.report.gallery import albums
from harness.views.report.origin import origin
from harness.views.report.page import Section, rows_of
from harness.views.tables import doubts

_PICTURES = 5_500_000  # bytes, over all runs
_CHART_OF = {"Cells": "errors", "Cost of a training step": "cost"}
"""Section -> the charts that stand with it."""


@dataclass(frozen=True)
class Material:
    """What the page says of one run. `name`: empty where it is the only one."""

    name: str
    journal: Journal
    shown: Shown
    answer: Answer
    sections: Sequence[Section]


def compose(runs: Sequence[Material], between: Sequence[Section] = ()) -> Document:
    """The page. `between`: what compares the runs with one another."""
    first, several = runs[0], len(runs) > 1
    charts = charts_of([run.shown for run in runs])
    title = f"capsbench: {' and '.join(dict.fromkeys(run.shown.seeds.suite for run in runs))}"
    questions = list(dict.fromkeys(run.shown.seeds.question for run in runs if run.shown.seeds.question))
    lead = [f"{run.name}: {line}" if several else line for run in runs for line in run.answer.sentences]
    small = list(dict.fromkeys(line for run in runs for line in run.answer.notes))
    small += [f"{run.name}: {run.shown.seeds.machine}" if several else run.shown.seeds.machine for run in runs]
    warnings = [f"{run.name}: {line}" if several else line for run in runs for line in _warnings(run.shown.seeds.cells)]
    parts = list(_parts(runs, charts, between, warnings))
    return Document(
        title,
        " ".join(ended(each) for each in questions),
        lead or [_silent(first)],
        [s for s in small if s],
        parts,
        warnings,
    )


def _silent(run: Material) -> str:
    return (
        f"{sum(len(cell.counted) for cell in run.shown.seeds.cells)} trials have finished; nothing can be compared yet."
    )


def _parts(
    runs: Sequence[Material], charts: Mapping[str, Sequence[Chart]], between: Sequence[Section], warnings: Sequence[str]
) -> Iterator[Part]:
    if charts["tradeoff"]:
        yield Part("tradeoff", "Error against time", charts=charts["tradeoff"])
    for section in between:
        yield _part(section, _id("runs", section.title))
    drawn: set[str] = set()
    for run in runs:
        for section in run.sections:
            name = _CHART_OF.get(section.title, "")
            own = [] if name in drawn else charts.get(name, [])
            drawn.add(name)
            yield _part(section, _id(run.name, section.title), run.name, own)
    if charts["learning"]:
        text = "Means over the seeds that count; what is drawn of each epoch is what its trial recorded."
        yield Part("learning", "Learning curves", text, charts["learning"])
    if charts["parity"]:
        yield Part("parity", "Parity", charts=charts["parity"])
    if charts["memory"]:
        yield Part("memory", "Memory", charts=charts["memory"])
    yield Part("trials", "Trials", "", tables=[("Every trial of the plan", _trials(runs))])
    budget = _PICTURES // len(runs)
    found = [(run, *albums(run.journal, run.shown.seeds.cells, budget)) for run in runs]
    if any(pictures for _, pictures, _ in found):
        notes = [line for _, _, left in found for line in left]
        yield Part(
            "gallery",
            "Pictures",
            "A picture opens on a click.",
            notes=notes,
            albums=[a for _, each, _ in found for a in each],
        )
    if warnings:
        yield Part("warnings", "Remarks", "What makes results doubtful, and what does not count.", notes=warnings)
    for run in runs:
        source, head = origin(run.journal, run.shown.seeds.cells), f"{run.name}: " if run.name else ""
        yield Part(
            _id(run.name, "environment"),
            f"{head}Environment",
            tables=[("Machine, libraries, variables", source.environment)],
        )
        code = [("Commands", source.commands)] + ([("The suite as it was given", source.suite)] if source.suite else [])
        tables = [("What must be the same", source.hashes)]
        yield Part(_id(run.name, "repeat"), f"{head}How to repeat it", tables=tables, code=code)


def _part(section: Section, id: str, run: str = "", charts: Sequence[Chart] = ()) -> Part:
    tables = [(section.title, Data(*rows_of(section.table)))] if section.table else []
    title = f"{run}: {section.title}" if run else section.title
    return Part(id, title, section.text, charts, tables, section.notes)


def _id(*names: str) -> str:
    """An element's id, of letters, digits and hyphens."""
    return "-".join("".join(c if c.isalnum() else "-" for c in name.lower()) for name in names if name)


def _warnings(cells: Sequence[Cell]) -> list[str]:
    return [*left_out(cells), *doubts([result for cell in cells for result in cell.results])]


def _trials(runs: Sequence[Material]) -> Data:
    several = len(runs) > 1
    titles = [
        *(["run"] if several else []),
        "trial",
        "implementation",
        "setting",
        "seed",
        "state",
        "parity",
        "test error %",
        "s/epoch",
        "epochs",
        "remark",
    ]
    numbers = {"seed", "test error %", "s/epoch", "epochs"}
    rows = [
        [*([run.name] if several else []), *_trial(result)]
        for run in runs
        for cell in run.shown.seeds.cells
        for result in cell.results
    ]
    return Data(titles, [title in numbers for title in titles], rows)


def _trial(result: Result) -> list[str]:
    gate = {True: "good", False: "FAILED", None: "not checked"}[result.parity_ok]
    remark = result.cause or result.flaw or result.timing_withheld or ""
    return [
        result.id, result.impl, setting(result.params), str(result.seed), result.status, gate, number(result.test_err_pct),
        number(result.epoch_s), str(result.epochs_trained), remark,
    ]  # fmt: skip
