"""A report's charts as Plotly figures, each with the table of the values that it shows. Colours of the page are its own."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.analysis.cells import METRICS, Cell
from harness.analysis.costs import Report, curves
from harness.analysis.gates import Gate
from harness.analysis.labels import color, spoken
from harness.analysis.learning import FIGURES, learning
from harness.analysis.seeds import OverSeeds
from harness.stats import Summary
from harness.text import UNKNOWN, number

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
_FILLS = ("", "-open", "-dot", "-open-dot")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_AT_FIRST = 12
"""So many learning curves are drawn at once; the legend brings out the others."""
_LISTED = 12  # cells that the legend names one by one
_ROW = 26  # pixels
_TITLES = {
    "train.batch": "batch (images a step)",
    "model.routing": "routing iterations",
    "data.canvas": "side of the image (pixels)",
}


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
    notes: Sequence[str] = field(default_factory=tuple[str, ...])


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


def charts_of(runs: Sequence[Shown]) -> dict[str, list[Chart]]:
    """Part of the page -> its charts. A part without anything to draw has none."""
    styles = Styles(runs)
    return {
        "tradeoff": _some(_tradeoff(runs, styles)),
        "errors": _some(_by_cell(runs, styles, "test_err_pct", "errors", "Test error by cell")),
        "learning": [chart for metric in FIGURES if (chart := _learning(runs, styles, metric))],
        "cost": [chart for run in runs for key in run.cost.keys if (chart := _cost(run, styles, key))],
        "parity": [chart for run in runs if (chart := _parity(run))],
        "memory": _some(_by_cell(runs, styles, "peak_bytes", "memory", "Most memory held")),
    }


def _some(chart: Chart | None) -> list[Chart]:
    return [chart] if chart else []


def _layout(x: str, y: str, height: int = 420, **more: Any) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 60, "r": 16, "t": 12, "b": 56},
        "xaxis": {"title": {"text": x, "standoff": 8}, "automargin": True, **more.pop("xaxis", {})},
        "yaxis": {"title": {"text": y, "standoff": 8}, "automargin": True, **more.pop("yaxis", {})},
        "legend": {"orientation": "h", "y": -0.22, "yanchor": "top"},
        "hovermode": "closest",
        **more,
    }


def _bars(found: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Plotly's error bars of (value, low, high)."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, _, high in found],
        "arrayminus": [value - low for value, low, _ in found],
        "thickness": 1.4,
        "width": 4,
    }


def _ends(found: Summary, scale: float = 1.0) -> tuple[float, float, float]:
    """The mean and its interval, none being of no width."""
    low, high = (found.mean if end is None else end for end in (found.low, found.high))
    return found.mean * scale, max(0.0, low) * scale, high * scale


def _range(low: float, high: float) -> str:
    return UNKNOWN if low == high else f"{number(low)} to {number(high)}"


def _seconds(cell: Cell) -> tuple[float, float, float] | None:
    """Seconds per epoch with the interval over seeds; of one seed, over its steady epochs."""
    found = cell.summary("epoch_s")
    if found is None:
        return None
    own = next((each.epoch_s_ci for each in cell.counted if each.epoch_s_ci), None)
    return (found.mean, *own) if found.n == 1 and own else _ends(found)


def _tradeoff(runs: Sequence[Shown], styles: Styles) -> Chart | None:
    traces: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    by_cell = sum(len(run.seeds.cells) for run in runs) <= _LISTED
    reach: list[tuple[float, float, float]] = []
    for run in runs:
        groups: dict[str, list[Cell]] = {}
        for cell in run.seeds.cells:
            groups.setdefault(run.label(cell) if by_cell else cell.impl, []).append(cell)
        for name, cells in groups.items():
            points = [
                (cell, seconds, _ends(error))
                for cell in cells
                if (seconds := _seconds(cell)) and (error := cell.summary("test_err_pct"))
            ]
            if not points:
                continue
            told = [(number(s[0]), _range(*s[1:]), f"{e[0]:.2f}", _range(*e[1:]), cell.seeds) for cell, s, e in points]
            rows += [[run.label(point[0]), *each] for point, each in zip(points, told, strict=True)]
            reach += [seconds for _, seconds, _ in points]
            impl = points[0][0].impl
            traces.append({
                "type": "scatter",
                "mode": "markers",
                "name": html.escape(name if by_cell else f"{run.name} {spoken(impl)}".strip()),
                "x": [s[0] for _, s, _ in points],
                "y": [e[0] for _, _, e in points],
                "error_x": _bars([s for _, s, _ in points]),
                "error_y": _bars([e for _, _, e in points]),
                "text": [html.escape(run.label(cell)) for cell, _, _ in points],
                "marker": styles.marker(run, impl, points[0][0].params if by_cell else None),
                "customdata": told,
                "hovertemplate": "<b>%{text}</b><br>%{customdata[0]} s/epoch (%{customdata[1]})<br>"
                "test error %{customdata[2]}% (%{customdata[3]})<br>seeds: %{customdata[4]}<extra></extra>",
            })  # fmt: skip
    if not traces:
        return None
    titles = ["cell", "s/epoch", "its interval", "test error %", "its interval", "seeds"]
    text = (
        "Test error against seconds per epoch, a point a cell: lower left is better. Bars: 95% intervals, over seeds; time "
        "of one seed over its steady epochs."
    )
    most, longest = 2.2 * max(value for value, _, _ in reach), 1.05 * max(high for _, _, high in reach)
    text += " Bars that leave the chart are longer; the table has their ends." * (longest > most)
    figure = {
        "data": traces,
        "layout": _layout("seconds per epoch", "test error %", xaxis={"range": [0, min(most, longest)]}),
    }
    return Chart("tradeoff", "Error against time", text, figure, Data(titles, [False, *[True] * 5], rows))


def _by_cell(runs: Sequence[Shown], styles: Styles, metric: str, id: str, title: str) -> Chart | None:
    """One row a cell: each seed, the mean with its interval, and published figures of the same metric."""
    scale, unit = METRICS[metric].scale, METRICS[metric].title
    traces: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for run in runs:
        for cell in run.seeds.cells:
            found, name = cell.summary(metric), run.label(cell)
            if found is None:
                continue
            y = html.escape(name)
            value, low, high = _ends(found, scale)
            seeds = {seed: each * scale for seed, each in cell.values(metric).items()}
            marker = styles.marker(run, cell.impl)
            if len(seeds) > 1:
                traces.append({
                    "type": "scatter", "mode": "markers", "x": list(seeds.values()), "y": [y] * len(seeds),
                    "marker": {**marker, "symbol": f"{marker['symbol']}-open", "size": 7}, "showlegend": False,
                    "customdata": list(seeds),
                    "hovertemplate": f"<b>{y}</b><br>seed %{{customdata}}: %{{x:.4g}}<extra></extra>",
                })  # fmt: skip
            traces.append({
                "type": "scatter", "mode": "markers", "x": [value], "y": [y], "marker": marker, "showlegend": False,
                "error_x": _bars([(value, low, high)]), "customdata": [[_range(low, high), cell.seeds]],
                "hovertemplate": f"<b>{y}</b><br>{unit} %{{x:.4g}} (%{{customdata[0]}})<br>"
                "seeds: %{customdata[1]}<extra></extra>",
            })  # fmt: skip
            rows.append([name, number(value), _range(low, high), number(found.sd and found.sd * scale, 2), cell.seeds])
            for each in run.seeds.beside if metric == "test_err_pct" else ():
                if each.cell is not cell or each.figure.metric != metric:
                    continue
                source = html.escape(f"{each.source.title.partition(':')[0]}, {each.figure.where}")
                symbol = "diamond-tall" if each.source.paper else "line-ns-open"
                traces.append({
                    "type": "scatter", "mode": "markers", "x": [each.figure.value], "y": [y], "showlegend": False,
                    "marker": {"color": "#888888", "symbol": symbol, "size": 11},
                    "hovertemplate": f"<b>{source}</b><br>%{{x}}<extra></extra>",
                })  # fmt: skip
    if not rows:
        return None
    text = f"{unit}, a row a cell. Open: each seed. Full: the mean, with its 95% interval."
    if any(each.figure.metric == metric for run in runs for each in run.seeds.beside):
        text += " Grey: published figures (diamond: the paper's)."
    layout = _layout(
        unit, "", 110 + _ROW * len(rows),
        xaxis={"rangemode": "tozero"}, yaxis={"autorange": "reversed", "type": "category", "title": {"text": ""}},
    )  # fmt: skip
    titles = ["cell", unit, "95% interval", "sd", "seeds"]
    return Chart(id, title, text, {"data": traces, "layout": layout}, Data(titles, [False, *[True] * 4], rows))


def _learning(runs: Sequence[Shown], styles: Styles, metric: str) -> Chart | None:
    traces: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    has_band, longest, count = False, 0, 0
    for run in runs:
        for curve in learning(run.seeds.cells, metric):
            name, shade = run.label(curve.cell), color(curve.cell.impl)
            count += 1
            shown = True if count <= _AT_FIRST else "legendonly"
            shared = {"legendgroup": name, "visible": shown, "type": "scatter", "x": curve.epochs}
            if curve.has_band:
                has_band = True
                edge = {**shared, "mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
                traces.append({**edge, "y": curve.low})
                traces.append({**edge, "y": curve.high, "fill": "tonexty", "fillcolor": _faint(shade)})
            told = [[_range(low, high), n] for low, high, n in zip(curve.low, curve.high, curve.seeds, strict=True)]
            line = {"color": shade, "dash": styles.dash(run, curve.cell.impl, curve.cell.params), "width": 2}
            marker = styles.marker(run, curve.cell.impl, curve.cell.params) | {"size": 5}
            traces.append({
                **shared, "mode": "lines+markers", "y": curve.mean, "name": html.escape(name), "line": line,
                "marker": marker, "customdata": told,
                "hovertemplate": f"<b>{html.escape(name)}</b><br>epoch %{{x}}: %{{y:.4g}} (%{{customdata[0]}})<br>"
                "seeds: %{customdata[1]}<extra></extra>",
            })  # fmt: skip
            longest = max(longest, curve.epochs[-1])
            rows += [
                [name, str(epoch), number(mean), _range(low, high), str(n)]
                for epoch, mean, low, high, n in zip(
                    curve.epochs, curve.mean, curve.low, curve.high, curve.seeds, strict=True
                )
            ]
    if longest < 2:
        return None
    title = FIGURES[metric]
    text = f"{title} by epoch, a line a cell" + ("; band: lowest to highest seed." if has_band else ".")
    text += " The legend shows further cells." if count > _AT_FIRST else ""
    axis = {"dtick": 1} if longest <= 20 else {}
    layout = _layout("epoch", title, xaxis=axis, yaxis={"rangemode": "tozero"})
    table = Data(["cell", "epoch", title, "seeds' range", "seeds"], [False, *[True] * 4], rows)
    return Chart(f"learning-{metric}", title.capitalize(), text, {"data": traces, "layout": layout}, table)


def _faint(shade: str) -> str:
    red, green, blue = (int(shade[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _cost(run: Shown, styles: Styles, key: str) -> Chart | None:
    traces: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for name, points in curves(run.cost, key).items():
        impl, model = points[0].line.impl, run.cost.models.get(points[0].line)
        xs = [point.trial.params[key] for point in points]
        ends = [(point.step_s, point.low_s, point.high_s) for point in points]
        predicted = [model.step_s(p.trial.model, p.trial.train.batch) if model else None for p in points]
        label = html.escape(name)
        traces.append({
            "type": "scatter", "mode": "lines+markers", "name": label, "x": xs, "y": [each[0] for each in ends],
            "error_y": _bars(ends), "marker": styles.marker(run, impl),
            "line": {"color": color(impl), "dash": styles.dash(run, impl), "width": 1.5},
            "customdata": [[_range(low, high), number(guess)] for (_, low, high), guess in zip(ends, predicted, strict=True)],
            "hovertemplate": f"<b>{label}</b><br>{html.escape(key)} %{{x}}: %{{y:.4g}} s a step (%{{customdata[0]}})<br>"
            "cost model: %{customdata[1]} s<extra></extra>",
        })  # fmt: skip
        rows += [
            [name, str(x), number(step), _range(low, high), number(guess)]
            for x, (step, low, high), guess in zip(xs, ends, predicted, strict=True)
        ]
    if not traces:
        return None
    title = _TITLES.get(key, key)
    text = (
        f"Seconds a training step by {title}, all else equal. Bars: 95% interval of the median over steady epochs, or "
        "the range of fewer than six."
    )
    axis = {"tickvals": sorted({x for trace in traces for x in trace["x"]})}
    layout = _layout(title, "seconds a step", xaxis=axis, yaxis={"rangemode": "tozero"})
    table = Data(["curve", title, "s/step", "interval", "cost model"], [False, *[True] * 4], rows)
    named = f"{run.name}: cost by {title}" if run.name else f"Cost by {title}"
    return Chart(f"cost-{run.name}-{key}".replace(".", "-"), named, text, {"data": traces, "layout": layout}, table)


def _parity(run: Shown) -> Chart | None:
    if not run.gates:
        return None
    levels = sorted({gate.level for gate in run.gates})
    impls = list(dict.fromkeys(gate.impl for gate in run.gates))
    by_place = {(gate.level, gate.impl): gate for gate in run.gates}
    z: list[list[float | None]] = []
    texts: list[list[str]] = []
    hovers: list[list[str]] = []
    for level in levels:
        row = [by_place.get((level, impl)) for impl in impls]
        z.append([_log(gate) for gate in row])
        texts.append([_mark(gate) for gate in row])
        hovers.append([_told(gate) for gate in row])
    data = {
        "type": "heatmap", "x": [html.escape(impl) for impl in impls], "y": levels, "z": z, "text": texts,
        "customdata": hovers, "texttemplate": "%{text}", "hovertemplate": "%{customdata}<extra></extra>",
        "zmin": -6, "zmax": 1, "xgap": 3, "ygap": 3,
        "colorscale": [[0, "#E8F1F8"], [0.85, "#5B9BC8"], [0.857, "#E69F00"], [1, "#B03A00"]],
        "colorbar": {
            "title": {"text": "error/<br>tolerance"}, "thickness": 12, "tickvals": [-6, -4, -2, 0],
            "ticktext": ["1e-6", "1e-4", "0.01", "1"],
        },
    }  # fmt: skip
    layout = _layout(
        "", "", 120 + 44 * len(levels),
        xaxis={"type": "category", "side": "top", "title": {"text": ""}},
        yaxis={"autorange": "reversed", "type": "category", "title": {"text": ""}},
    )  # fmt: skip
    rows = [
        [
            g.level, g.impl, "good" if g.is_ok else f"{g.beyond} beyond", g.tensor, _float(g.rel_err), _float(g.tolerance),
            _share(g), str(g.compared), g.trial,
        ]
        for g in run.gates
    ]  # fmt: skip
    titles = [
        "level", "implementation", "verdict", "worst tensor", "relative error", "tolerance", "error/tolerance", "compared",
        "trial",
    ]  # fmt: skip
    right = [False, False, False, False, True, True, True, True, False]
    text = (
        "The gate before the clock started: at each level of the ladder, the tensor nearest to its tolerance, and its error "
        "in units of the tolerance. Up to 1 is good."
    )
    title = f"{run.name}: parity" if run.name else "Parity with the specification"
    return Chart(
        f"parity-{run.name}".rstrip("-"), title, text, {"data": [data], "layout": layout}, Data(titles, right, rows)
    )


def _log(gate: Gate | None) -> float | None:
    if gate is None:
        return None
    return max(-6.0, min(1.0, math.log10(gate.share))) if gate.share else -6.0


def _share(gate: Gate) -> str:
    return number(gate.share, 2) if math.isfinite(gate.share) else "not finite"


def _mark(gate: Gate | None) -> str:
    if gate is None:
        return ""
    return f"{'ok' if gate.is_ok else 'FAILED'} {_share(gate)}"


def _told(gate: Gate | None) -> str:
    if gate is None:
        return "not compared"
    return (
        f"<b>{gate.level}, {html.escape(gate.impl)}</b><br>worst of {gate.compared}: {html.escape(gate.tensor)}<br>"
        f"error {_float(gate.rel_err)}, tolerance {_float(gate.tolerance)}"
    )


def _float(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}" if value else "0"
