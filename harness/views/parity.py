"""Parity reports as shown on the screen: a table with one line per level, and a sentence for each failure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.parity.check import LEVELS, Check, Report
from harness.parity.words import figure, sentence
from harness.text import UNKNOWN
from harness.views.tables import print_table


def table(reports: Sequence[Report], level: str) -> Table:
    """One line per level up to `level`: its worst check, the one nearest to its tolerance or farthest beyond."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("impl", "precision", "level"):
        made.add_column(title, no_wrap=True)
    made.add_column("checks", justify="right", no_wrap=True)
    made.add_column("worst", no_wrap=True)
    for title in ("rel err", "tolerance"):
        made.add_column(title, justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    for number, report in enumerate(reports):
        if number:
            made.add_row()
        worst = report.level_errors()
        for each in LEVELS[: LEVELS.index(level) + 1]:
            head = (Text(report.impl), report.precision, each)
            check = worst.get(each)
            if check is None:
                state = Text("skipped" if each in report.skipped else "not reached", "yellow")
                made.add_row(*head, "", "", "", "", state)
                continue
            count = sum(other.level == each for other in report.checks)
            error = figure(check.rel_err) if math.isfinite(check.rel_err) else UNKNOWN
            # the tolerance means nothing if nothing was compared
            tolerance = figure(check.tolerance) if math.isfinite(check.rel_err) else UNKNOWN
            state = _state(report, check)
            made.add_row(*head, str(count), Text(check.name), error, tolerance, state)
    return made


def _state(report: Report, check: Check) -> Text:
    if not check.ok:
        return Text("FAILED", "bold red")
    return Text("ok with conventions", "yellow") if report.ok and report.conventions else Text("ok", "green")


def show(console: Console, reports: Sequence[Report], logs: Sequence[Path], level: str) -> None:
    """Prints the table, why levels were skipped, each failure with its log, and the verdict."""
    print_table(console, table(reports, level))
    lines: list[Text] = []
    reasons: dict[str, list[str]] = {}
    for report in reports:
        for each, reason in report.skipped.items():
            reasons.setdefault(f"{report.impl}: %s skipped: {reason}", []).append(each)
    for reason, levels in reasons.items():
        lines.append(Text(reason.replace("%s", ", ".join(dict.fromkeys(levels)), 1), "yellow"))
    for report, log in zip(reports, logs, strict=True):
        if not report.ok:
            lines += [Text(sentence(report), "red"), Text(f"  log: {log}")]
        elif report.conventions:
            lines.append(Text(sentence(report), "yellow"))
    lines.append(verdict(reports))
    console.print()
    for line in lines:
        console.print(line, soft_wrap=True)


def verdict(reports: Sequence[Report]) -> Text:
    """The verdict in a sentence."""
    failed = sum(not report.ok for report in reports)
    count = sum(len(report.checks) for report in reports)
    told = f"{failed} of {len(reports)} failed" if failed else f"all ok: {count:,} checks, {len(reports)} reports"
    own = sum(report.ok and bool(report.conventions) for report in reports)
    told += f", {own} right with conventions" if own else ""
    return Text(f"Parity: {told}.", "bold red" if failed else "bold green")
