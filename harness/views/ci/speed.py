"""`capsbench speed` for CI: a case for each measurement, and for each comparison with a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from harness.text import UNKNOWN, number
from harness.views.ci import markdown
from harness.views.ci.junit import Case, State, document
from harness.views.speed import table

_STATES: Mapping[str, State] = {"slower": "failed", "no verdict": "skipped"}


def junit(found: Mapping[str, Any]) -> str:
    """A case for each measurement, and one for each that the baseline has, failed if it is slower."""
    cases = [
        Case("speed.measured", cell["name"])
        if cell["status"] == "ok"
        else Case("speed.measured", cell["name"], "failed", str(cell["cause"]), f"{cell['cause']}\nlog: {cell['log']}")
        for cell in found["cells"]
    ]
    for row in _rows(found):
        cases.append(Case("speed.baseline", row["name"], _STATES.get(row["verdict"], "passed"), sentence(row)))
    return document("capsbench speed", cases, {"baseline": str(_baseline(found).get("path", ""))})


def summary(found: Mapping[str, Any]) -> str:
    """The verdict, the table, the comparison with the baseline, and warnings."""
    rows = _rows(found)
    lines = markdown.heading("capsbench speed", found["ok"], verdict(found))
    lines += markdown.table(table(found["cells"], {}))
    if rows:
        lines += ["### Against the baseline", "", *markdown.table(baseline_table(rows))]
    told = [f"{cell['name']}: {cell['cause']}" for cell in found["cells"] if cell["status"] != "ok"]
    told += [f"{cell['name']}: {warning}" for cell in found["cells"] for warning in cell["warnings"]]
    return "\n".join([*lines, *markdown.notes([*told, *_baseline(found).get("warnings", ()), *found["warnings"]])])


def verdict(found: Mapping[str, Any]) -> str:
    """The verdict in a sentence."""
    failed = [cell["name"] for cell in found["cells"] if cell["status"] != "ok"]
    slower = [row["name"] for row in _rows(found) if row["verdict"] == "slower"]
    told = [f"Failed: {', '.join(failed)}."] if failed else []
    told += [f"Slower than the baseline: {', '.join(slower)}."] if slower else []
    return " ".join(told) or ("Nothing is shown to be slower than the baseline." if _rows(found) else "Measured.")


def sentence(row: Mapping[str, Any]) -> str:
    """One comparison with the baseline in words."""
    if row["ratio"] is None or row["low"] is None:
        return f"no verdict: {row['reason']}"
    return (
        f"{row['verdict']}: a step took {number(row['then'])} {row['basis']}, and takes {number(row['now'])}: "
        f"{row['ratio']:.2f}x [{row['low']:.2f}, {row['high']:.2f}]"
    )


def baseline_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each measurement that the baseline has, too."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("measurement", no_wrap=True)
    for title in ("baseline", "now", "ratio", "interval"):
        made.add_column(title, justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    for row in rows:
        interval = UNKNOWN if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        ratio = UNKNOWN if row["ratio"] is None else f"{row['ratio']:.2f}x"
        told = row["verdict"] + (f" ({row['reason']})" if row["reason"] else "")
        made.add_row(
            row["name"], *(f"{number(row[key])} {row['basis']}" for key in ("then", "now")), ratio, interval, told
        )
    return made


def _rows(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return _baseline(found).get("rows", ())


def _baseline(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return found.get("baseline") or {}
