"""A history in sentences: what stepped where, and by how much; what a run is called."""

from __future__ import annotations

import time

from harness.analysis.cells import ALPHA, METRICS
from harness.analysis.history import Found, History, Run, Series
from harness.stats.steps import BESIDE, FEWEST_RUNS, MEMORY
from harness.text import number

METHOD = (
    f"A step is shown at a level of {ALPHA:.0%} for all series together. The test allows for outliers, and for runs that are "
    f"alike because they are neighbours (correlation up to {MEMORY:g}). It takes {FEWEST_RUNS} runs, {BESIDE} of them on each "
    "side of a step. With noise of 2% between runs, it finds a step of 10% in more than 95 of 100 histories of 30 runs, once "
    "eight runs have followed; with more noise it takes larger steps or more runs."
)


def name_of(run: Run, place: int) -> str:
    """ "12: 3f2a91c04, 2026-11-20": its place counted from 1, its commit or version, and the day."""
    return f"{place + 1}: {run.commit or run.made_by or run.path.name}, {day(run.ended)}"


def day(seconds: float) -> str:
    """The day in UTC."""
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "an unknown day"


def value(series: Series, mean: float) -> str:
    """A value of the series in the unit that people see."""
    return number(mean * METRICS[series.metric].scale)


def change(series: Series, before: float, after: float) -> str:
    """ "+10.2%", and of an error "+0.12 points"."""
    if "err_pct" in series.metric:
        return f"{after - before:+.2f} points"
    return f"{100 * (after - before) / before:+.1f}%" if before else f"{value(series, after - before)}"


def sentence(history: History, found: Found) -> str:
    """What stepped, by how much, with which run, and what is new in it."""
    step, series = found.step, found.series
    direction = "rose" if step.after > step.before else "fell"
    new = f"; new in it: {', '.join(found.new)}" if found.new else "; nothing else that was recorded is new in it"
    return (
        f"{METRICS[series.metric].title} of {series.cell.name} {direction} from {value(series, step.before)} to "
        f"{value(series, step.after)} ({change(series, step.before, step.after)}) with run "
        f"{name_of(history.runs[found.run], found.run)}{new}"
    )


def verdict(history: History) -> str:
    """The answer in a sentence."""
    if not history.tested:
        return f"Nothing could be tested for steps: that takes {FEWEST_RUNS} runs."
    count = len(history.found)
    tests = f"{history.tested} series of up to {max(len(each.runs) for each in history.series)} runs"
    if not count:
        return f"No step is shown in {tests}."
    return f"{count} {'step is' if count == 1 else 'steps are'} shown in {tests}."
