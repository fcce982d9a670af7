"""The tables of a report."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from harness.analysis.cells import METRICS, Cell, Change
from harness.analysis.costs import Report, timed
from harness.analysis.images import ImageRow
from harness.analysis.labels import setting
from harness.analysis.published import Beside
from harness.analysis.seeds import OverSeeds
from harness.cost.fit import sentence
from harness.stats import Difference, Summary
from harness.text import UNKNOWN, number


def table(report: Report) -> Table:
    """One row per cell."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("impl", "setting"):
        made.add_column(title, no_wrap=True)
    for title in ("s/step", "interval", "ms/image", "s/epoch", "model", "error"):
        made.add_column(title, justify="right", no_wrap=True)
    for point, error in zip(report.points, report.errors, strict=True):
        trial, model = point.trial, report.models.get(point.line)
        interval = f"{number(point.low_s)} - {number(point.high_s)}" if point.epochs > 1 else UNKNOWN
        made.add_row(
            str(point.line),
            setting(trial.params),
            number(point.step_s),
            interval,
            number(1e3 * point.step_s / trial.train.batch),
            number(point.step_s * point.steps),
            number(model.step_s(trial.model, trial.train.batch)) if model else UNKNOWN,
            UNKNOWN if error is None else f"{100 * error:+.1f}%",
        )
    return made


def sentences(report: Report) -> list[str]:
    """For each cost model: what a step consists of, and how well the model predicts."""
    first = {point.line: point for point in reversed(report.points)}
    return [
        sentence(str(line), setting(first[line].trial.params), timed(first[line]), model)
        for line, model in report.models.items()
    ]


_THEIRS = {"paper": True, "others": False}  # column -> whether the source is the paper


def mean(found: Summary | None, scale: float = 1.0, fixed: int | None = None, *, tells_one: bool = True) -> str:
    """ "0.28 ± 0.04": the mean and half its 95% interval; "0.28 (one seed)"; "0.28 (all 3)" if all seeds agree.

    Args:
        fixed: decimals of the mean; by default it has three significant digits.
        tells_one: whether "(one seed)" is added; where a column has the number of seeds, it need not be.
    """
    if found is None:
        return UNKNOWN
    value = found.mean * scale
    text = number(value) if fixed is None else f"{value:.{fixed}f}"
    if found.n == 1:
        return f"{text} (one seed)" if tells_one else text
    if found.low is None:
        return f"{text} (all {found.n})"
    return f"{text} ± {number((found.mean - found.low) * scale, 2)}"


def cells_table(report: OverSeeds) -> Table:
    """One row per cell: the mean over seeds and half its 95% interval, beside the paper's and others' figures."""
    shown = [name for name in ("best_test_err_pct", "val_err_pct") if _there(report.cells, name)]
    columns = ["test_err_pct", *shown, "epoch_s", "compile_s", "peak_bytes"]
    varied = any(cell.params for cell in report.cells)
    theirs = [title for title, paper in _THEIRS.items() if any(each.source.paper is paper for each in report.beside)]
    table = _table(["impl", *(["setting"] if varied else [])], ["seeds", "test error %", "sd", *theirs])
    for name in columns[1:]:
        table.add_column(METRICS[name].title, justify="right", no_wrap=True)
    for cell in report.cells:
        error = cell.summary("test_err_pct")
        table.add_row(
            cell.impl,
            *([setting(cell.params)] if varied else []),
            cell.seeds,
            mean(error, fixed=2, tells_one=False),
            number(error and error.sd, 2),
            *(_theirs(report.beside, cell, _THEIRS[title]) for title in theirs),
            *(
                mean(cell.summary(name), METRICS[name].scale, 2 if "err_pct" in name else None, tells_one=False)
                for name in columns[1:]
            ),
        )
    return table


def changes_table(found: Sequence[Change]) -> Table:
    """One row for every two cells that differ in one setting, for one metric; the tests were corrected together."""
    table = _table(["where", "from", "to"], ["difference", "95% interval", "p", "Holm's p", "seeds", "detectable"])
    table.add_column("finding", no_wrap=True)
    for change in found:
        test = change.test
        interval = (
            UNKNOWN if test.low is None or test.low == test.high else f"{_signed(test.low)} to {_signed(test.high)}"
        )
        impl = change.others.get("impl")
        rest = setting({key: value for key, value in change.others.items() if key != "impl"})
        table.add_row(
            ", ".join(filter(None, (impl, rest))) or "all",
            setting({change.key: change.value(change.a)}),
            setting({change.key: change.value(change.b)}),
            _signed(test.difference),
            interval,
            p_value(test.p),
            p_value(test.adjusted_p),
            _seeds(test),
            number(test.detectable, 2),
            verdict(change),
        )
    return table


def images_table(found: Sequence[ImageRow]) -> Table:
    """One row for every two cells that saw the same test images; counts of wrong images are sums over seeds."""
    table = _table(["from", "to"], ["seeds", "wrong in both", "from alone", "to alone", "McNemar's p"])
    for title in ("difference", "95% interval", "Holm's p", "detectable"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("finding", no_wrap=True)
    for row in found:
        test = row.test
        run = row.key == "run"
        table.add_row(
            f"A: {row.a.name}" if run else row.a.name,
            "B" if run else row.b.name,
            str(len(row.by_seed)),
            *(f"{row.count(field):,}" for field in ("both", "only_a", "only_b")),
            " ".join(p_value(each.p) for each in row.by_seed.values()),
            _signed(test.difference),
            UNKNOWN if test.low is None else f"{_signed(test.low)} to {_signed(test.high)}",
            p_value(test.adjusted_p),
            number(test.detectable, 2),
            verdict(row),
        )
    return table


def verdict(change: Change | ImageRow) -> str:
    """ "more", "less", "none shown", or why there is no test."""
    test = change.test
    if test.p is None:
        return "one seed" if test.n_a == test.n_b == 1 else "too few seeds"
    if not change.significant:
        return "none shown"
    return "more" if (test.difference or 0) > 0 else "less"


def published_table(report: OverSeeds) -> tuple[Table, list[str]]:
    """One row for each published figure beside each of our cells, and the notes numbered in its last column."""
    table = _table(["impl", "setting", "figure"], ["ours", "theirs"])
    for title in ("source", "not alike"):
        table.add_column(title, no_wrap=True)
    notes: dict[str, int] = {}
    for each in report.beside:
        figure = each.figure
        numbers = [str(notes.setdefault(text, len(notes) + 1)) for text in each.unlike]
        title = METRICS[figure.metric].title if not figure.images else f"s per {figure.images:,} images"
        table.add_row(
            each.cell.impl,
            setting(each.cell.params),
            title,
            mean(
                each.ours, fixed=None if figure.images else 2, tells_one=any(len(c.results) > 1 for c in report.cells)
            ),
            theirs(each),
            f"{each.source.title.partition(':')[0]}, {figure.where}",
            ", ".join(numbers),
        )
    return table, [f"{index}: {text}" for text, index in notes.items()]


def theirs(each: Beside) -> str:
    """ "0.25 (sd 0.005, n 3)"."""
    figure = each.figure
    return f"{figure.value:g}" + (f" (sd {figure.sd:g}, n {figure.n})" if figure.sd else "")


def p_value(p: float | None) -> str:
    if p is None:
        return UNKNOWN
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _theirs(found: Sequence[Beside], cell: Cell, paper: bool) -> str:
    """Published test errors: the paper's with its spread, others in order."""
    own = [
        each
        for each in found
        if each.cell is cell and each.source.paper is paper and each.figure.metric == "test_err_pct"
    ]
    if paper:
        return (
            ", ".join(f"{e.figure.value:g}" + (f" sd {e.figure.sd:g}" if e.figure.sd else "") for e in own) or UNKNOWN
        )
    return ", ".join(f"{value:g}" for value in sorted({each.figure.value for each in own})) or UNKNOWN


def _there(cells: Sequence[Cell], metric: str) -> bool:
    return any(cell.summary(metric) for cell in cells)


def _signed(value: float | None) -> str:
    return UNKNOWN if value is None else "0" if value == 0 else f"{'+' if value > 0 else ''}{number(value)}"


def _seeds(test: Difference) -> str:
    if test.paired and test.p is not None:
        return f"{test.n_a} pairs"
    return str(test.n_a) if test.n_a == test.n_b else f"{test.n_a}, {test.n_b}"


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in left:
        table.add_column(title, no_wrap=True)
    for title in right:
        table.add_column(title, justify="right", no_wrap=True)
    return table
