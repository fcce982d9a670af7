"""What `capsbench speed --json` measured, in a report: a step's distance to the machine's floor, and its parts."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.table import Table

from harness.errors import UserError
from harness.sniff import what_is
from harness.text import UNKNOWN, number
from harness.views.parts import breakdown, explained, is_told, milliseconds, parts_of, share, shown, step
from harness.views.report.chart import Chart, Data
from harness.views.report.page import Section
from harness.views.speed import table

_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C564B", "#999999", "#F0E442")
_PATTERNS = ("", "/", "x", "-", "|", "+", ".", "\\")
_PALE = 0.35
_TEXT = (
    "A training step measured by itself, apart from the run (capsbench speed), beside the machine's floor: the time of its "
    "operations at the rate of the best matrix product."
)


@dataclass(frozen=True)
class Measured:
    """A measurement of `capsbench speed`: its tables, and the chart of what was measured well."""

    sections: Sequence[Section]
    charts: Sequence[Chart]


def read(path: Path) -> Measured:
    """The measurement in a file. Raises `UserError` if it is not what `capsbench speed --json` prints."""
    advice = "give what `capsbench speed --json > speed.json` wrote"
    try:
        document: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"--speed {path} cannot be read: {error.strerror or error}; {advice}") from error
    except (ValueError, RecursionError):
        raise UserError(f"--speed {path} is {what_is(path)}; {advice}") from None
    found = cast("dict[str, Any]", document) if isinstance(document, dict) else {"cells": None}
    rows: Any = found.get("cells", [])
    if not isinstance(rows, list):
        raise UserError(f"--speed {path} is not what capsbench speed measures; {advice}")
    rows = cast("list[Any]", rows)
    cells = [cast("dict[str, Any]", row) for row in rows if isinstance(row, dict)]
    good = [cell for cell in cells if cell.get("status") == "ok"]
    try:
        made: list[tuple[str, str, Table | None]] = [("A step and its floor", _TEXT, table(rows, {}))]
        made += [("Parts of a step", " ".join(explained(good)), found) for found in breakdown(good)]
        charts = [_chart(good)] if good else []
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        raise UserError(
            f"--speed {path} is not what capsbench speed measures: it has no such cells; {advice}"
        ) from None
    if not good:
        raise UserError(f"--speed {path} has no step that was measured; {advice}")
    return Measured([Section(title, text, found) for title, text, found in made], charts)


def _chart(rows: Sequence[Mapping[str, Any]]) -> Chart:
    told = [row for row in rows if "breakdown" in row]
    names = [html.escape(row["name"]) for row in rows]
    traces: list[dict[str, Any]] = [
        {
            "type": "bar", "orientation": "h", "y": names, "name": html.escape(part),
            "x": [1e3 * max(0.0, row.get("breakdown", {}).get(part) or 0.0) for row in rows],
            "customdata": [shown(row, part) if row in told else UNKNOWN for row in rows],
            "marker": {
                "color": _COLORS[place % len(_COLORS)],
                "opacity": [1.0 if is_told(row, part) else _PALE for row in rows],
                "pattern": {"shape": _PATTERNS[place % len(_PATTERNS)], "solidity": 0.2, "fillmode": "overlay"},
            },
            "hovertemplate": f"<b>%{{y}}</b><br>{html.escape(part)}: %{{customdata}} ms<extra></extra>",
        }
        for place, part in enumerate(parts_of(told))
    ]  # fmt: skip
    floors = [(name, row["floor_s"]) for name, row in zip(names, rows, strict=True) if row["floor_s"]]
    for title, symbol, found in (
        ("step", "line-ns-open", [(name, step(row)) for name, row in zip(names, rows, strict=True)]),
        ("floor", "diamond", floors),
    ):
        traces.append({
            "type": "scatter", "mode": "markers", "name": title, "y": [name for name, _ in found],
            "x": [1e3 * seconds for _, seconds in found],
            "marker": {"symbol": symbol, "size": 44 if title == "step" else 10, "color": "#888888", "line": {"width": 3}},
            "hovertemplate": f"<b>%{{y}}</b><br>{title}: %{{x:.4g}} ms<extra></extra>",
        })  # fmt: skip
    layout = {
        "barmode": "stack", "height": 170 + 46 * len(rows), "margin": {"l": 60, "r": 16, "t": 12, "b": 56},
        "xaxis": {"title": {"text": "milliseconds a training step", "standoff": 8}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True, "title": {"text": ""}},
        "legend": {"orientation": "h", "y": -0.3, "yanchor": "top", "traceorder": "normal"}, "hovermode": "closest",
    }  # fmt: skip
    text = "Milliseconds a training step: its parts (pale: what noise hides); a stroke, the step; a diamond, the floor."
    return Chart("speed", "Parts of a step, and its floor", text, {"data": traces, "layout": layout}, _data(rows))


def _data(rows: Sequence[Mapping[str, Any]]) -> Data:
    """A line for each part of each measurement, and one for the whole step and its floor."""
    titles = ["measurement", "part", "ms", "95% interval", "forward ms", "backward ms", "% of step", "of floor"]
    lines: list[list[str]] = []
    for row in rows:
        found = {each["part"]: each for each in row["parts"]["rows"]} if "parts" in row else {}
        for part in parts_of([row] if "breakdown" in row else []):
            own, seconds = found.get(part, {}), row["breakdown"][part]
            lines.append([
                row["name"], part, shown(row, part).partition(" (")[0], _range(own.get("s_ci")),
                _ms(own.get("forward_s")), _ms(own.get("backward_s")), f"{100 * max(0.0, seconds) / step(row):.1f}", "",
            ])  # fmt: skip
        summed = [f"{100 * share(row):.1f}"] if "breakdown" in row else [UNKNOWN]
        lines.append([
            row["name"], "step", milliseconds(step(row)), "", "", "", *summed,
            number(row["step_over_floor"]),
        ])  # fmt: skip
    return Data(titles, [False, False, *[True] * (len(titles) - 2)], lines)


def _ms(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else milliseconds(seconds)


def _range(interval: Sequence[float] | None) -> str:
    return " to ".join(milliseconds(max(0.0, end)) for end in interval) if interval else UNKNOWN
