"""`capsbench parity` for CI: a case for each comparison, and a table with a line for each level."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.analysis.equivalence import Judgement, sentence
from harness.parity.check import LEVELS, Check, Report
from harness.parity.words import figure
from harness.parity.words import sentence as told_of
from harness.text import UNKNOWN
from harness.views import equivalence
from harness.views.ci import markdown
from harness.views.ci.junit import Case, State, document
from harness.views.parity import table, verdict

_TITLE = "capsbench parity"


def junit(reports: Sequence[Report], level: str, model: Mapping[str, Any] | None = None) -> str:
    """A case for each check of each report, each level left out, and each layer of an ordinary model."""
    cases = [case for report in reports for case in _cases(report, level)]
    return document(_TITLE, [*_layers(model or {}), *cases], {"level": level})


def summary(
    reports: Sequence[Report], level: str, warnings: Sequence[str], model: Mapping[str, Any] | None = None
) -> str:
    """The verdict, a table, a sentence for each failure and each convention, and warnings."""
    off = [case for case in _layers(model or {}) if case.state == "failed"]
    is_good = all(report.ok for report in reports) and not off
    told = str(verdict(reports)) if not off else f"{len(off)} layers differ. {verdict(reports)}"
    lines = markdown.heading(_TITLE, is_good, told)
    lines += markdown.notes([case.message for case in off])
    lines += markdown.table(table(reports, level))
    lines += markdown.notes([told_of(report) for report in reports if not report.ok or report.conventions])
    return "\n".join([*lines, *markdown.notes(warnings)])


def pair_junit(found: Mapping[str, Any]) -> str:
    """Of two models: a case for each layer and each value."""
    return document(_TITLE, list(_layers(found)), {})


def pair_summary(found: Mapping[str, Any]) -> str:
    """Of two models: the verdict, and what differs."""
    cases = list(_layers(found))
    off = [case.message for case in cases if case.state == "failed"]
    told = (
        f"{len(off)} of {len(cases)} layers and values differ" if off else f"all {len(cases)} layers and values agree"
    )
    return "\n".join([*markdown.heading(_TITLE, not off, told), *markdown.notes(off)])


def judged_junit(judgement: Judgement) -> str:
    """Of a run (L7): a case for each pair; failed if it is shown to differ, skipped without a verdict."""
    states: Mapping[str | None, State] = {"different": "failed", None: "skipped"}
    cases = [
        Case(f"L7.{pair.a} - {pair.b}", sentence(pair), states.get(pair.verdict, "passed"), sentence(pair))
        for pair in judgement.pairs
    ]
    return document(f"{_TITLE} L7", cases, {"run": str(judgement.run_dir)})


def judged_summary(judgement: Judgement) -> str:
    """Of a run (L7): the verdict and the table."""
    lines = markdown.heading(f"{_TITLE} L7", judgement.ok, str(equivalence.verdict(judgement)))
    lines += markdown.table(equivalence.table(judgement.pairs))
    return "\n".join([*lines, *markdown.notes([judgement.caveat] if judgement.caveat else [])])


def _cases(report: Report, level: str) -> Iterator[Case]:
    group = f"{report.impl}.{report.precision}"
    for check in report.checks:
        yield Case(
            f"{group}.{check.level}", check.name, "passed" if check.ok else "failed", _said(check), _where(check)
        )
    reached = {check.level for check in report.checks}
    for each in LEVELS[: LEVELS.index(level) + 1]:
        if each not in reached:
            why = report.skipped.get(each)
            yield Case(f"{group}.{each}", "level", "skipped", why or "not reached, as a level below failed")


def _said(check: Check) -> str:
    if check.note and not math.isfinite(check.rel_err):
        return f"{check.name}: {check.note}"
    told = f"{check.name}: relative error {_figure(check.rel_err)}, tolerance {figure(check.tolerance)}"
    return told + (f" ({check.note})" if check.note else "")


def _where(check: Check) -> str:
    told = _said(check)
    return (
        told
        if check.where is None
        else f"{told}\nat {list(check.where)}: found {check.found}, expected {check.expected}"
    )


def _layers(found: Mapping[str, Any]) -> Iterator[Case]:
    """The layers and values of `capsbench parity --json`; a layer that cannot be seen is skipped."""
    for row in found.get("layers") or ():
        told = f"{row['layer']}: relative error {_figure(row['own'])}, with the right input {_figure(row['fed'])}"
        told += f" ({row['note']})" if row["note"] else ""
        state: State = "skipped" if row["own"] is None else "passed" if row["ok"] else "failed"
        yield Case("model.layers", row["layer"], state, told)
    for row in found.get("values") or ():
        told = f"{row['name']}: relative error {_figure(row['rel_err'])}" + (f" ({row['note']})" if row["note"] else "")
        yield Case("model.values", row["name"], "passed" if row["ok"] else "failed", told)


def _figure(error: float | None) -> str:
    return figure(error) if error is not None and math.isfinite(error) else UNKNOWN
