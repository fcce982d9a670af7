"""What charts of a report have in common: the chart with its table, runs to draw, styles, axes and error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.cells import Cell
from harness.analysis.costs import Report
from harness.analysis.gates import Gate
from harness.analysis.labels import color
from harness.analysis.seeds import OverSeeds
from harness.stats import Summary
from harness.text import UNKNOWN, number

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
_FILLS = ("", "-open", "-dot", "-open-dot")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class Data:
    """A table: its columns, which of them are numbers, and its rows as text."""

    titles: Sequence[str]
    right: Sequence[bool]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """A chart, what it shows in a sentence (for those who do not see it), and the table behind it."""

    id: str
    title: str
    text: str
    figure: dict[str, Any]
    table: Data


@dataclass(frozen=True)
class Shown:
    """A run among those in a report. `name` stands before its cells where there are several runs, else it is empty."""

    name: str
    seeds: OverSeeds
    cost: Report
    gates: Sequence[Gate]

    def label(self, cell: Cell) -> str:
        """What a cell is called in charts."""
        return f"{self.name}: {cell.name}" if self.name else cell.name


class Styles:
    """A colour and a symbol for each implementation; fill and dash tell settings apart where there are several."""

    def __init__(self, runs: Sequence[Shown]) -> None:
        cells = [(run.name, cell) for run in runs for cell in run.seeds.cells]
        self._who = list(dict.fromkeys((name, cell.impl) for name, cell in cells))
        self._settings = list(dict.fromkeys(repr(cell.params) for _, cell in cells))

    def index(self, run: Shown, impl: str) -> int:
        """The place of the run's implementation among all."""
        return self._who.index((run.name, impl))

    def marker(self, run: Shown, impl: str, params: Any = None) -> dict[str, Any]:
        """Plotly's marker."""
        fill = _FILLS[self._setting(params) % len(_FILLS)]
        symbol = _SYMBOLS[self.index(run, impl) % len(_SYMBOLS)] + fill
        return {"color": color(impl), "symbol": symbol, "size": 10, "line": {"width": 1.6, "color": color(impl)}}

    def dash(self, run: Shown, impl: str, params: Any = None) -> str:
        """Plotly's dash."""
        place = self._setting(params) if len(self._settings) > 1 and params is not None else self.index(run, impl)
        return _DASHES[place % len(_DASHES)]

    def _setting(self, params: Any) -> int:
        return 0 if params is None else self._settings.index(repr(params))


def layout_of(x: str, y: str, height: int = 420, **more: Any) -> dict[str, Any]:
    """Plotly's layout with these titles of the axes; `more`: what is added to it."""
    return {
        "height": height,
        "margin": {"l": 60, "r": 16, "t": 12, "b": 56},
        "xaxis": {"title": {"text": x, "standoff": 8}, "automargin": True, **more.pop("xaxis", {})},
        "yaxis": {"title": {"text": y, "standoff": 8}, "automargin": True, **more.pop("yaxis", {})},
        "legend": {"orientation": "h", "y": -0.22, "yanchor": "top"},
        "hovermode": "closest",
        **more,
    }


def bars(found: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Plotly's error bars of (value, low, high)."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, _, high in found],
        "arrayminus": [value - low for value, low, _ in found],
        "thickness": 1.4,
        "width": 4,
    }


def ends_of(found: Summary, scale: float = 1.0) -> tuple[float, float, float]:
    """The mean and its interval, none being of no width."""
    low, high = (found.mean if end is None else end for end in (found.low, found.high))
    return found.mean * scale, max(0.0, low) * scale, high * scale


def span(low: float, high: float) -> str:
    """ "0.28 to 0.32"; unknown where both ends are the same."""
    return UNKNOWN if low == high else f"{number(low)} to {number(high)}"
