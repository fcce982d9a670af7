"""The comparison of two runs, as shown on the screen."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.cells import METRICS
from harness.analysis.choice import advice
from harness.analysis.compare import Comparison
from harness.analysis.labels import setting
from harness.text import UNKNOWN, number
from harness.views.report.choice_table import TITLE, choice_table, explained
from harness.views.report.tables import images_table, mean, p_value
from harness.views.tables import print_table

_COLORS = {"worse": "bold red", "better": "green"}


def table(comparison: Comparison) -> Table:
    """One row per metric of each cell."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("metric", "impl", "setting"):
        made.add_column(title, no_wrap=True)
    for title in ("A", "B", "change", "95% interval", "Holm's p", "detectable"):
        made.add_column(title, justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    for row in comparison.rows:
        metric, test = METRICS[row.metric], row.test
        low, high, detectable = (
            UNKNOWN if end is None else number(end * metric.scale) for end in (test.low, test.high, test.detectable)
        )
        made.add_row(
            metric.title,
            row.a.impl,
            setting(row.a.params),
            mean(row.a.summary(row.metric), metric.scale),
            mean(row.b.summary(row.metric), metric.scale),
            UNKNOWN if row.change_pct is None else f"{row.change_pct:+.1f}%",
            UNKNOWN if test.low is None or test.low == test.high else f"{low} to {high}",
            p_value(test.adjusted_p),
            detectable,
            Text(row.verdict, _COLORS.get(row.verdict, "")),
        )
    return made


def show(console: Console, comparison: Comparison) -> None:
    """Prints the table, what differs between the two runs, and the verdict."""
    print_table(console, table(comparison))
    console.print()
    if comparison.images:
        console.print(Text("Test errors image by image", "bold"))
        print_table(console, images_table(comparison.images))
        console.print()
    chosen = [*comparison.choices_a, *comparison.choices_b]
    if chosen:
        console.print(Text(TITLE, "bold"))
        console.print(Text(explained(chosen), "dim"), soft_wrap=True)
        runs = ["A"] * len(comparison.choices_a) + ["B"] * len(comparison.choices_b)
        print_table(console, choice_table(chosen, runs))
        for run, found in ((comparison.run_a, comparison.choices_a), (comparison.run_b, comparison.choices_b)):
            for line in advice(run, found):
                console.print(Text(line, "dim"), soft_wrap=True)
        console.print()
    for line in comparison.warnings:
        console.print(Text(line, "yellow"), soft_wrap=True)
    console.print(verdict(comparison), soft_wrap=True)


def verdict(comparison: Comparison) -> Text:
    """The verdict in a sentence."""
    worse = [row for row in comparison.rows if row.verdict == "worse"]
    tested = sum(row.test.p is not None for row in comparison.rows)
    if comparison.broken:
        return Text(f"B is broken: {'; '.join(comparison.broken)}.", "bold red")
    if worse:
        named = "; ".join(f"{METRICS[row.metric].title} of {row.a.name}" for row in worse)
        return Text(f"B is worse: {named}.", "bold red")
    return Text(f"Nothing is shown to be worse in B ({tested} tests).", "green" if tested else "yellow")
