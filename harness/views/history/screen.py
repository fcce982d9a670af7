"""A history as shown on the screen: the runs, the series, the steps."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.cells import METRICS
from harness.analysis.history import History, Run, Series
from harness.analysis.labels import setting
from harness.text import UNKNOWN
from harness.views.history.words import change, day, sentence, value, verdict
from harness.views.tables import print_table

_RUNS_SHOWN = 40


def runs_table(runs: Sequence[Run]) -> Table:
    """One row per run; of many, the last ones."""
    made = _table(("run", "day", "commit", "version", "folder"), ())
    for place, run in list(enumerate(runs, start=1))[-_RUNS_SHOWN:]:
        version = run.made_by.removeprefix("capsbench ")
        made.add_row(str(place), day(run.ended), run.commit or UNKNOWN, version or UNKNOWN, str(run.path))
    return made


def series_table(history: History) -> Table:
    """One row per series: its first and last level, and the steps between them."""
    made = _table(("metric", "impl", "setting"), ("runs", "first level", "last level", "change"))
    made.add_column("steps at run", no_wrap=True)
    for series in history.series:
        levels = series.levels()
        first, last = levels[0][2], levels[-1][2]
        places = ", ".join(str(series.runs[step.at] + 1) for step in series.steps)
        told = (
            Text(places, _color(series)) if places else Text("none shown" if series.is_tested else "not tested", "dim")
        )
        made.add_row(
            METRICS[series.metric].title, series.cell.impl, setting(series.cell.params), str(len(series.runs)),
            value(series, first), value(series, last), change(series, first, last) if places else UNKNOWN, told,
        )  # fmt: skip
    return made


def show(console: Console, history: History) -> None:
    """Prints the tables, each step in a sentence, what is doubtful, and what could not be used."""
    print_table(console, runs_table(history.runs))
    if len(history.runs) > _RUNS_SHOWN:
        console.print(Text(f"The last {_RUNS_SHOWN} of {len(history.runs)} runs; all of them: on the page", "dim"))
    console.print()
    print_table(console, series_table(history))
    console.print()
    for found in history.found:
        worse = found.step.after > found.step.before
        console.print(Text(f"{sentence(history, found)}.", "red" if worse else "green"), soft_wrap=True)
    for line in history.warnings:
        console.print(Text(line, "yellow"), soft_wrap=True)
    for line in history.problems:
        console.print(Text(line, "red"), soft_wrap=True)
    console.print(Text(verdict(history), "bold"), soft_wrap=True)


def _color(series: Series) -> str:
    return "bold red" if series.steps[-1].after > series.steps[-1].before else "green"


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in left:
        made.add_column(title, no_wrap=True)
    for title in right:
        made.add_column(title, justify="right", no_wrap=True)
    return made
