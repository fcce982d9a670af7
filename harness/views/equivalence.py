"""The verdict on a run's equivalence, as shown on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.equivalence import INTERVAL, Judgement, Pair, interval_text, p_text, points_text, sentence, varies
from harness.analysis.labels import setting
from harness.text import UNKNOWN
from harness.views.tables import print_table

_COLORS = {"equivalent": "green", "different": "bold red", "not shown": "yellow", None: "yellow"}


def table(pairs: Sequence[Pair]) -> Table:
    """One line per pair."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    varied = any(pair.params for pair in pairs)
    for title in ("impls", *(["setting"] if varied else [])):
        made.add_column(title, no_wrap=True)
    for title in ("difference", f"{INTERVAL} interval", "margin", "p", "seeds"):
        made.add_column(title, justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    for pair in pairs:
        test, verdict = pair.test, pair.verdict
        row = [Text(f"{pair.a} - {pair.b}"), *([Text(setting(pair.params))] if varied else [])]
        seeds = str(test.n_a) if test.n_a == test.n_b else f"{test.n_a}, {test.n_b}"
        difference = UNKNOWN if test.difference is None else points_text(test.difference)
        interval, p = (interval_text(test), p_text(test)) if verdict and varies(test) else (UNKNOWN, UNKNOWN)
        state = Text("needs more seeds" if pair.needs_seeds else verdict or "no verdict", _COLORS[verdict])
        made.add_row(
            *row, difference, interval, points_text(test.margin), p.removeprefix("p ").removeprefix("= "), seeds, state
        )
    return made


def show(console: Console, judgement: Judgement) -> None:
    """Prints the table, what is missing for a verdict, and the overall verdict."""
    print_table(console, table(judgement.pairs))
    lines = [Text(sentence(pair), "yellow") for pair in judgement.pairs if pair.verdict is None]
    lines += [Text(judgement.caveat, "yellow")] if judgement.caveat else []
    console.print()
    for line in [*lines, verdict(judgement)]:
        console.print(line, soft_wrap=True)


def verdict(judgement: Judgement) -> Text:
    """The overall verdict in a sentence."""
    count = len(judgement.pairs)
    different = sum(pair.verdict == "different" for pair in judgement.pairs)
    equivalent = sum(pair.verdict == "equivalent" for pair in judgement.pairs)
    if different:
        return Text(f"L7: {different} of {count} pairs differ by more than the margin.", "bold red")
    return Text(f"L7: {equivalent} of {count} pairs equivalent.", "bold green" if equivalent == count else "yellow")
