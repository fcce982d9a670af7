"""A search for the screen and the report: a row a contestant, and what a reader should know about it."""

from __future__ import annotations

from rich.table import Table

from harness.analysis.labels import setting
from harness.analysis.search import Contestant, Search
from harness.stats import Summary
from harness.text import UNKNOWN, number

TITLE = "Search"


def text(search: Search) -> str:
    """How it was searched, and how far the figures can be trusted."""
    ranges = ", ".join(f"{key} {_shown(form)}" for key, form in search.space.items())
    seeds = ", ".join(map(str, search.confirm))
    return (
        f"Method {search.method}, {search.budget} for each contestant, seed {search.seed}; searched: {ranges}. Proposals are "
        "judged by their validation error after the last epoch, and see no test images. The best of many looks better than "
        f"it is; so it was trained anew with seed {seeds}: mean and 95% interval of these. The search itself was made once: "
        "how much another one would have found is not in the interval."
    )


def table(search: Search) -> Table:
    """One row per contestant."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    varied = any(each.params for each in search.contestants)
    has_half = any(each.half_pct is not None for each in search.contestants)
    for title in ("impl", *(["setting"] if varied else []), "best"):
        made.add_column(title, no_wrap=True)
    for title in ("proposals", "epochs", *(["half %"] if has_half else []), "val %", "anew: val %", "test %", "seeds"):
        made.add_column(title, justify="right", no_wrap=True)
    for each in search.contestants:
        made.add_row(
            each.impl,
            *([setting(each.params)] if varied else []),
            setting(each.values) or UNKNOWN,
            f"{each.proposals}, {each.failed} failed" if each.failed else str(each.proposals),
            str(each.epochs),
            *([_pct(each.half_pct)] if has_half else []),
            _pct(each.val_err_pct),
            _interval(each.confirmed_val),
            _interval(each.confirmed_test),
            _seeds(each),
        )
    return made


def notes(search: Search) -> list[str]:
    """What is not in the table, or to be doubted."""
    said: list[str] = []
    for each in search.contestants:
        if each.is_over and each.best is None:
            whose = (
                f"none of its {each.proposals} proposals counts"
                if each.proposals > 1
                else "its proposal does not count"
            )
            said.append(f"{each.name}: {whose}; the logs in trials/ say why, and it is not tried again")
        elif not each.is_over:
            said.append(f"{each.name}: the search is not over; run the suite again to go on")
        if search.trials and each.is_over and each.proposals < search.trials:
            said.append(f"{each.name}: the space has no more than {each.proposals} proposals, of {search.trials}")
        for key, edge in each.at_edge.items():
            end = "low" if edge == "lower" else "high"
            said.append(
                f"{each.name}: the best {key}, {each.values[key]}, is at the {edge} end of its range; the best may be beyond: "
                f"{end}er values are worth a try"
            )
    if any(each.half_pct is not None for each in search.contestants):
        said.append(
            "half %: the best validation error of the first half of the proposals, which half the budget would give"
        )
    return said


def _shown(form: object) -> str:
    if isinstance(form, dict):
        [(kind, (low, high))] = form.items()  # pyright: ignore[reportUnknownVariableType]
        return f"{low} to {high}{' (logarithmic)' if kind == 'log' else ''}"
    return str(form)


def _pct(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _interval(found: Summary | None) -> str:
    """ "1.20 ± 0.31"; of a single seed without an interval."""
    if found is None or found.low is None:
        return _pct(found and found.mean)
    return f"{found.mean:.2f} ± {number(found.mean - found.low, 2)}"


def _seeds(each: Contestant) -> str:
    counted = len(each.seeds)
    return f"{counted} of {each.planned}" if counted < each.planned else str(counted)
