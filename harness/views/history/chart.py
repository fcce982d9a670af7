"""A series as a picture: a point a run, a line for each level, a mark for each step. Plain SVG, coloured by the page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from harness.analysis.cells import METRICS
from harness.analysis.history import History, Series
from harness.views.history.words import change, name_of, value

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 22, 26
_POINT = 3.0


def draw(history: History, series: Series) -> str:
    """The picture. Hover shows each run's value; its label says in words what it shows."""
    scale = METRICS[series.metric].scale
    values = [each * scale for each in series.values]
    ticks = nice(min(values), max(values))
    low, high = min(ticks[0], *values), max(ticks[-1], *values)
    count = len(history.runs)

    def x(place: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (place + 0.5) / count

    def y(found: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (found - low) / (high - low)

    drawn = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text x="{_LEFT - 5}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{_tick(tick, ticks)}</text>'
        for tick in ticks
    ]
    places = sorted({0, count - 1, *(series.runs[step.at] for step in series.steps)})
    drawn += [
        f'<text x="{x(place):.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{place + 1}</text>'
        for place in _apart(places, count)
    ]
    for step in series.steps:
        at = x(series.runs[step.at] - 0.5)
        side, shift = ("end", -4) if at > _WIDTH * 0.6 else ("start", 4)
        drawn.append(
            f'<line class="step" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 8}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text class="told" x="{at + shift:.1f}" y="{_TOP - 9}" text-anchor="{side}">'
            f"{html.escape(change(series, step.before, step.after))}</text>"
        )
    for first, last, mean in series.levels():
        begin, end = x(series.runs[first] - 0.4), x(series.runs[last] + 0.4)
        level = f"{y(mean * scale):.1f}"
        drawn.append(f'<line class="level" x1="{begin:.1f}" x2="{end:.1f}" y1="{level}" y2="{level}"/>')
    for place, found, seeds in zip(series.runs, values, series.found, strict=True):
        title = f"{name_of(history.runs[place], place)}: {value(series, found / scale)}"
        title += f" ({seeds.n} seeds)" if seeds.n > 1 else ""
        drawn.append(
            f'<circle cx="{x(place):.1f}" cy="{y(found):.1f}" r="{_POINT}"><title>{html.escape(title)}</title></circle>'
        )
    label = html.escape(f"{METRICS[series.metric].title} of {series.cell.name} over {len(values)} runs", quote=True)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'


def nice(low: float, high: float) -> list[float]:
    """Three to six round numbers, the first at or below `low`, the last at or above `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        room = abs(low) * 0.05 or 1.0
        low, high = low - room, high + room
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _tick(tick: float, ticks: Sequence[float]) -> str:
    """The number with as many decimals as its neighbours need."""
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) + 1
    text = f"{tick:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _apart(places: Sequence[int], count: int) -> list[int]:
    """Those whose numbers do not run into one another; the ends first."""
    kept: list[int] = []
    for place in sorted(places, key=lambda each: (each not in (0, count - 1), each)):
        if all(abs(place - other) * (_WIDTH - _LEFT - _RIGHT) / count >= 24 for other in kept):
            kept.append(place)
    return kept
