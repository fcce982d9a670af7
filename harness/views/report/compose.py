"""The parts of the page, from one run or from several side by side."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis.answer import Answer
from harness.analysis.cells import Cell
from harness.analysis.labels import setting
from harness.analysis.seeds import left_out_together
from harness.journal.journal import Journal
from harness.journal.results import Result
from harness.text import ended, number
from harness.views.report.chart import Chart, Data, Shown
from harness.views.report.charts import charts_of
from harness.views.report.document import Document, Part
from harness.views.report.gallery import albums
from harness.views.report.origin import origin
from harness.views.report.page import Section, rows_of
from harness.views.tables import doubts

_PICTURES = 4_000_000  # bytes, over all runs
_CHART_OF = {"Cells": "errors", "Cost of a training step": "cost", "A step and its floor": "speed"}
"""Section -> the charts that stand with it."""


@dataclass(frozen=True)
class Material:
    """What the page says of one run. `name`: empty where it is the only one."""

    name: str
    journal: Journal
    shown: Shown
    answer: Answer
    sections: Sequence[Section]


def compose(runs: Sequence[Material], between: Sequence[Section] = (), speed: Sequence[Chart] = ()) -> Document:
    """The page. `between`: what compares the runs with one another; `speed`: charts of a step measured by itself."""
    first, several = runs[0], len(runs) > 1
    charts = {**charts_of([run.shown for run in runs]), "speed": speed}
    title = f"capsbench: {' and '.join(dict.fromkeys(run.shown.seeds.suite for run in runs))}"
    questions = list(dict.fromkeys(run.shown.seeds.question for run in runs if run.shown.seeds.question))
    lead = [f"{run.name}: {line}" if several else line for run in runs for line in run.answer.sentences]
    small = list(dict.fromkeys(line for run in runs for line in run.answer.notes))
    small += [f"{run.name}: {run.shown.seeds.machine}" if several else run.shown.seeds.machine for run in runs]
    warnings = [f"{run.name}: {line}" if several else line for run in runs for line in _warnings(run.shown.seeds.cells)]
    parts = list(_numbered(_parts(runs, charts, between, warnings)))
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


def _numbered(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts; each chart has an id that no other has, however runs are named."""
    count = itertools.count(1)
    for part in parts:
        yield replace(part, charts=[replace(chart, id=str(next(count))) for chart in part.charts])


def _parts(
    runs: Sequence[Material], charts: Mapping[str, Sequence[Chart]], between: Sequence[Section], warnings: Sequence[str]
) -> Iterator[Part]:
    several = len(runs) > 1
    said = set(warnings)
    for index, section in enumerate(between):
        yield _part(section, f"between-{index}", charts=charts.get(_CHART_OF.get(section.title, ""), ()))
    if charts["tradeoff"]:
        yield Part("tradeoff", "Error against time", charts=charts["tradeoff"])
    if several and charts["errors"]:
        yield Part("errors", "Test errors", charts=charts["errors"])
    if several and charts["cost"]:
        yield Part("cost", "Cost of a training step", charts=charts["cost"])
    if not several:
        yield from _own_parts(runs, charts, said)
    if charts["learning"]:
        text = "Means over the seeds that count; what is drawn of each epoch is what its trial recorded."
        yield Part("learning", "Learning curves", text, charts["learning"])
    if charts["parity"]:
        yield Part("parity", "Parity", charts=charts["parity"])
    if charts["memory"]:
        yield Part("memory", "Memory", charts=charts["memory"])
    if several:
        yield from _own_parts(runs, {}, said)
    yield Part("trials", "Trials", "", tables=[("Every trial of the plan", _trials(runs))])
    budget = _PICTURES // len(runs)
    found = [(run, *albums(run.journal, run.shown.seeds.cells, budget)) for run in runs]
    notes = [line for _, _, left in found for line in left]
    if any(pictures for _, pictures, _ in found):
        pictures = [album for _, each, _ in found for album in each]
        yield Part("gallery", "Pictures", "A picture opens on a click.", notes=notes, albums=pictures)
    else:
        text = "The run directory has none yet. capsbench figures RUN draws them; then write the report again."
        yield Part("gallery", "Pictures", text, notes=notes)
    if warnings:
        yield Part("warnings", "Remarks", "What makes results doubtful, and what does not count.", notes=warnings)
    for index, run in enumerate(runs):
        source = origin(run.journal, run.shown.seeds.cells)
        tables = [("Machine, libraries, variables", source.environment)]
        yield Part(f"environment-{index}", "Environment", tables=tables, run=run.name)
        code = [("Commands", source.commands)] + ([("The suite as it was given", source.suite)] if source.suite else [])
        tables = [("What must be the same", source.hashes)]
        yield Part(f"repeat-{index}", "How to repeat it", tables=tables, code=code, run=run.name)


def _own_parts(runs: Sequence[Material], charts: Mapping[str, Sequence[Chart]], said: Container[str]) -> Iterator[Part]:
    """Each run's own sections."""
    for index, run in enumerate(runs):
        for section in run.sections:
            own = charts.get(_CHART_OF.get(section.title, ""), ())
            yield _part(section, f"run-{index}-{_id(section.title)}", run.name, own, said)


def _part(section: Section, id: str, run: str = "", charts: Sequence[Chart] = (), said: Container[str] = ()) -> Part:
    """The section; what is `said` among the remarks is not repeated here."""
    tables = [(section.title, Data(*rows_of(section.table)))] if section.table else []
    notes = [note for note in section.notes if (f"{run}: {note}" if run else note) not in said]
    return Part(id, section.title, section.text, charts, tables, notes, run=run)


def _id(*names: str) -> str:
    """An element's id, of letters, digits and hyphens."""
    return "-".join("".join(c if c.isalnum() else "-" for c in name.lower()) for name in names if name)


def _warnings(cells: Sequence[Cell]) -> list[str]:
    return [*left_out_together(cells), *doubts([result for cell in cells for result in cell.results])]


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
    kept = [column for column in range(len(titles)) if any(row[column] for row in rows)]
    return Data(
        [titles[column] for column in kept],
        [titles[column] in numbers for column in kept],
        [[row[column] for column in kept] for row in rows],
    )


def _trial(result: Result) -> list[str]:
    gate = {True: "good", False: "FAILED", None: "not checked"}[result.parity_ok]
    withheld = result.timing_withheld if result.status == "finished" else None
    remark = result.flaw or result.cause or withheld or ""
    return [
        result.id, result.impl, setting(result.params), str(result.seed), result.status, gate, number(result.test_err_pct),
        number(result.epoch_s), str(result.epochs_trained), remark,
    ]  # fmt: skip
