"""`capsbench compare` for CI: a case for each comparison, and the table with its verdict."""

from __future__ import annotations

from harness.analysis.cells import METRICS
from harness.analysis.compare import Comparison, Row
from harness.analysis.labels import setting
from harness.text import number
from harness.views.ci import markdown
from harness.views.ci.junit import Case, State, document
from harness.views.compare import table, verdict
from harness.views.report.tables import images_table

_STATES: dict[str, State] = {"worse": "failed", "one seed": "skipped", "no test": "skipped"}


def junit(comparison: Comparison) -> str:
    """A case for each metric of each cell, failed if worse, skipped if not tested; and one for each broken trial."""
    cases = [_case(row) for row in comparison.rows]
    cases += [Case("compare.trials", line, "failed", f"broken in B: {line}") for line in comparison.broken]
    properties = {"A": str(comparison.run_a), "B": str(comparison.run_b)}
    return document("capsbench compare", cases, properties)


def summary(comparison: Comparison) -> str:
    """The verdict, the table, test errors image by image, and what differs between the two runs."""
    worse = [place for place, row in enumerate(comparison.rows) if row.verdict == "worse"]
    lines = markdown.heading("capsbench compare", comparison.ok, str(verdict(comparison)))
    lines += markdown.notes([f"A: {comparison.run_a}", f"B: {comparison.run_b}"])
    lines += markdown.table(table(comparison), worse)
    if comparison.images:
        lines += ["### Test errors image by image", "", *markdown.table(images_table(comparison.images))]
    return "\n".join([*lines, *markdown.notes(comparison.warnings)])


def _case(row: Row) -> Case:
    metric, test = METRICS[row.metric], row.test
    found = [each.summary(row.metric) for each in (row.a, row.b)]
    a, b = (number(each.mean * metric.scale) if each else "unknown" for each in found)
    change = "" if row.change_pct is None else f" ({row.change_pct:+.1f}%)"
    p = "" if test.adjusted_p is None else f"; Holm's p = {test.adjusted_p:.3g}"
    told = f"{row.verdict}: {metric.title} {a} in A, {b} in B{change}{p}"
    group = ".".join(filter(None, ("compare", row.a.impl, setting(row.a.params))))
    return Case(group, metric.title, _STATES.get(row.verdict, "passed"), told, f"{told}\n{test.reason or ''}".strip())
