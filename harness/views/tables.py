"""Tables for the screen: a run's comparison, a plan, the data sets. Pure functions from results to Rich tables."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from harness.analysis.cells import grouped
from harness.analysis.labels import setting
from harness.journal.results import Result
from harness.text import UNKNOWN, duration, number
from harness.views.layout import lines, width_of


def comparison(results: Sequence[Result]) -> Table:
    """One row per cell, with means over its finished seeds.

    "error %" is for the last epoch's weights; "best %" for those with the lowest validation error, if there is one.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("impl", no_wrap=True)
    varied = any(result.params for result in results)
    if varied:
        table.add_column("setting", no_wrap=True)
    has_best = any(result.best_test_err_pct is not None for result in results)
    errors = {"error %": "test_err_pct", **({"best %": "best_test_err_pct"} if has_best else {})}
    for title in (*errors, "s/epoch", "compile s", "images/s", "peak MB", "parity", "speed"):
        table.add_column(title, justify="right", no_wrap=True)
    base_s: float | None = None
    for cell in grouped(results):
        epoch_s, compile_s, peak = (_mean(cell, name) for name in ("epoch_s", "compile_s", "peak_bytes"))
        base_s = base_s or epoch_s
        row: list[RenderableType] = [cell[0].impl]
        if varied:
            row.append(setting(cell[0].params))
        row += [
            *(_error(cell, name) for name in errors.values()),
            number(epoch_s),
            number(compile_s and round(compile_s, 3), 2),
            number(_mean(cell, "img_per_s")),
            number(peak / 1e6 if peak else None),
            _parity(cell),
            f"{base_s / epoch_s:.2f}x" if base_s and epoch_s else UNKNOWN,
        ]
        table.add_row(*row)
    return table


def print_table(console: Console, table: Table) -> None:
    """Prints a table, whose cells are texts of one line, with every cell in full, as `harness.views.layout` arranges it."""
    if table.title:
        console.print(Text(str(table.title), table.title_style or ""), soft_wrap=True)
    for is_plain, found in itertools.groupby(
        lines(console, table, width_of(console)), lambda line: isinstance(line, str)
    ):
        if is_plain:  # at once: a thousand rows take a second otherwise
            console.out("\n".join(map(str, found)), highlight=False)
            continue
        for line in found:
            console.print(line, soft_wrap=True)


def _mean(cell: Sequence[Result], name: str) -> float | None:
    values = [getattr(result, name) for result in cell if result.status == "finished"]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _error(cell: Sequence[Result], name: str) -> str:
    values = [value for result in cell if (value := getattr(result, name)) is not None]
    if not values:
        return UNKNOWN
    spread = f" sd {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    stopped = " (stopped on test)" if any(result.stopped_on == "test" for result in cell) else ""
    return f"{statistics.fmean(values):.2f}{spread}{stopped}"


def _parity(cell: Sequence[Result]) -> Text:
    if any(result.parity_ok is not False and result.flaw for result in cell):
        return Text("audit FAILED", "bold red")
    verdicts = [result.parity_ok for result in cell]
    if False in verdicts:
        return Text("FAILED", "bold red")
    worst = max((result.parity_max_rel_err or 0 for result in cell), default=0)
    return Text(f"ok {worst:.0e}", "green") if True in verdicts else Text(UNKNOWN)


def remarks(results: Sequence[Result], run_dir: Path) -> list[Text]:
    """What the table cannot show: every failure with its cause and log, every warning once."""
    lines: list[Text] = []
    for result in results:
        who = f"{result.impl} {setting(result.params)} seed {result.seed}".replace("  ", " ")
        if result.status in ("failed", "interrupted"):
            verdict = " failed" if result.status == "failed" else ""
            lines.append(Text(f"{who}{verdict}: {result.cause}", "red"))
            if result.hint:
                lines.append(Text(f"  {result.hint}"))
            if result.log:
                lines.append(Text(f"  log: {run_dir / result.log}"))
        elif result.flaw:
            error = number(result.parity_max_rel_err, 2)
            found = f" (relative error {error})" if result.parity_ok is False else ""
            lines.append(Text(f"{who}: {result.flaw}{found}", "red"))
        if origin := result.continued_from:
            where = f" in {origin['run']}" if "run" in origin else ""
            lines.append(Text(f"{who} went on from epoch {origin['epoch']} of trial {origin['trial']}{where}", "dim"))
    return [*lines, *(Text(line, "yellow") for line in doubts(results))]


_FIGURE = re.compile(r"(?<![\w=.:/-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w:/])")
"""A number that a warning has measured; no part of a name, of a path or of a setting."""


def doubts(results: Sequence[Result]) -> list[str]:
    """Every warning once, and why there is no timing; each begins with the implementations that it concerns.

    Warnings that differ in nothing but their figures are one, with the range of each figure. Not those of a search's
    proposals, which no table shows.
    """
    notes: dict[str, list[tuple[str, str, str]]] = {}
    for result in (each for each in results if each.phase != "proposal"):
        withheld = result.status == "finished" and result.timing_withheld
        reasons = [*result.warnings, *([f"no timing verdict: {withheld}"] if withheld else [])]
        if result.audit and result.audit["ok"] is None:
            reasons.append(f"audit: {result.audit['note']}")
        for reason in dict.fromkeys(reasons):
            notes.setdefault(_FIGURE.sub("#", reason), []).append((result.id, result.impl, reason))
    return [_together(alike) for alike in notes.values()]


def _together(alike: Sequence[tuple[str, str, str]]) -> str:
    """One line for warnings, each with its trial and implementation, that differ in nothing but their figures."""
    ids, impls, reasons = (list(dict.fromkeys(each)) for each in zip(*alike, strict=True))
    if len(reasons) == 1:
        return f"{', '.join(impls)}: {reasons[0]}"
    ranges = zip(*(_FIGURE.findall(reason) for reason in reasons), strict=True)
    figures = iter([sorted(set(found), key=lambda figure: float(figure.replace(",", ""))) for found in ranges])
    line = _FIGURE.sub(lambda _: " to ".join(dict.fromkeys((each := next(figures))[:1] + each[-1:])), reasons[0])
    return f"{', '.join(impls)}, in {len(ids)} trial{'s' * (len(ids) > 1)}: {line}"


def epochs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per trial and epoch: some of the columns of `harness.analysis.rows.all_rows`."""
    varied = [[*row][[*row].index("seed") + 1 : [*row].index("epoch")] for row in rows[:1]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("trial", "impl", *(("setting",) if varied and varied[0] else ()), "state"):
        table.add_column(title, no_wrap=True)
    errors = {"train loss": "train_loss", "train %": "train_err_pct", "val loss": "val_loss", "val %": "val_err_pct"}
    for title in ("seed", "epoch", *errors, "s/epoch", "images/s", "test %"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        settings = {key: row[key] for key in varied[0] if row[key] is not None}
        is_last = row["epoch"] == row["trial_epochs_trained"] and row["epoch"]
        error = row["trial_test_err_pct"] if is_last else row["test_err_pct"]
        table.add_row(
            row["trial"], row["impl"], *([setting(settings)] if varied[0] else ()), row["trial_status"],
            str(row["seed"]), UNKNOWN if row["epoch"] is None else str(row["epoch"]),
            *(number(row[name]) for name in errors.values()), number(row["epoch_s"]), number(row["img_per_s"]),
            number(error) if is_last or error is not None else "",
        )  # fmt: skip
    return table


def plan_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The trials of a suite: what each one is, what it needs, and what is already known about it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("trial", "implementation", "setting", "seed", "cpus", "gpus", "state", "estimate"):
        figure = title in ("seed", "cpus", "gpus", "estimate")
        table.add_column(title, justify="right" if figure else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row["id"],
            row["impl"],
            ", ".join(filter(None, (setting(row["params"]), "confirmation" * (row.get("phase") == "confirmation")))),
            str(row["seed"]),
            str(row["cpus"]),
            str(row["gpus"]),
            _state(row),
            _estimate(row),
        )
    return table


def _state(row: Mapping[str, Any]) -> str:
    shorter = row.get("goes_on_from")
    if not shorter:
        return row["state"]
    where = f" in {shorter['run']}" if "run" in shorter else ""
    return f"goes on from epoch {shorter['epoch']} of {shorter['trial']}{where}"


def _estimate(row: Mapping[str, Any]) -> str:
    if row["estimate_s"] == 0:
        return ""
    return ("at most " if row["at_most"] and row["estimate_s"] else "") + duration(row["estimate_s"])


def data_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The data sets: their sizes, and whether their files are here."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "images", "classes", "train", "validation", "test", "state", "where"):
        figure = title in ("classes", "train", "validation", "test")
        table.add_column(title, justify="right" if figure else "left", no_wrap=True)
    for row in rows:
        if row["state"] == "broken":
            table.add_row(row["name"], *["-"] * 5, "broken", "-")
            continue
        size = "x".join(str(side) for side in row["image"])
        counts = (f"{row[split]:,}" for split in ("train", "validation", "test"))
        where = row["path"] or row["source"]
        table.add_row(row["name"], size, str(row["classes"]), *counts, row["state"], where)
    return table


def print_data(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the table of data sets, and what is wrong with any of them."""
    print_table(console, data_table(rows))
    for row in rows:
        if row["detail"] and row["state"] in ("corrupt", "broken"):
            console.print(Text(f"\n{row['name']}: {row['detail']}", "yellow"), soft_wrap=True)
    if any(row["state"] in ("absent", "test only") for row in rows):
        hint = "`capsbench data fetch NAME` fetches or makes what is absent; a run does so by itself."
        console.print(Text(f"\n{hint}", "dim"), soft_wrap=True)
