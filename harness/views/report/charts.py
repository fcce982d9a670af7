"""A report's charts as Plotly figures, each with the table of the values that it shows. Colours of the page are its own."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from harness.analysis.cells import METRICS, Cell
from harness.analysis.costs import curves
from harness.analysis.labels import color, spoken
from harness.analysis.learning import FIGURES, learning
from harness.text import number
from harness.views.report.chart import Chart, Data, Shown, Styles, bars, ends_of, layout_of, span
from harness.views.report.parity_chart import parity_chart

_AT_FIRST = 12
"""So many learning curves are drawn at once; the legend brings out the others."""
_LISTED = 12  # cells that the legend names one by one
_ROW = 26  # pixels
_TITLES = {
    "train.batch": "batch (images a step)",
    "model.routing": "routing iterations",
    "data.canvas": "side of the image (pixels)",
}


def charts_of(runs: Sequence[Shown]) -> dict[str, list[Chart]]:
    """Part of the page -> its charts. A part without anything to draw has none."""
    styles = Styles(runs)
    return {
        "tradeoff": _some(_tradeoff(runs, styles)),
        "errors": _some(_by_cell(runs, styles, "test_err_pct", "errors", "Test error by cell")),
        "learning": [chart for metric in FIGURES if (chart := _learning(runs, styles, metric))],
        "cost": [chart for run in runs for key in run.cost.keys if (chart := _cost(run, styles, key))],
        "parity": [chart for run in runs if (chart := parity_chart(run))],
        "memory": _some(_by_cell(runs, styles, "peak_bytes", "memory", "Most memory held")),
    }


def _some(chart: Chart | None) -> list[Chart]:
    return [chart] if chart else []


def _seconds(cell: Cell) -> tuple[float, float, float] | None:
    """Seconds per epoch with the interval over seeds; of one seed, over its steady epochs."""
    found = cell.summary("epoch_s")
    if found is None:
        return None
    own = next((each.epoch_s_ci for each in cell.counted if each.epoch_s_ci), None)
    return (found.mean, *own) if found.n == 1 and own else ends_of(found)


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
                (cell, seconds, ends_of(error))
                for cell in cells
                if (seconds := _seconds(cell)) and (error := cell.summary("test_err_pct"))
            ]
            if not points:
                continue
            told = [(number(s[0]), span(*s[1:]), f"{e[0]:.2f}", span(*e[1:]), cell.seeds) for cell, s, e in points]
            rows += [[run.label(point[0]), *each] for point, each in zip(points, told, strict=True)]
            reach += [seconds for _, seconds, _ in points]
            impl = points[0][0].impl
            traces.append({
                "type": "scatter",
                "mode": "markers",
                "name": html.escape(name if by_cell else f"{run.name} {spoken(impl)}".strip()),
                "x": [s[0] for _, s, _ in points],
                "y": [e[0] for _, _, e in points],
                "error_x": bars([s for _, s, _ in points]),
                "error_y": bars([e for _, _, e in points]),
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
        "layout": layout_of("seconds per epoch", "test error %", xaxis={"range": [0, min(most, longest)]}),
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
            value, low, high = ends_of(found, scale)
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
                "error_x": bars([(value, low, high)]), "customdata": [[span(low, high), cell.seeds]],
                "hovertemplate": f"<b>{y}</b><br>{unit} %{{x:.4g}} (%{{customdata[0]}})<br>"
                "seeds: %{customdata[1]}<extra></extra>",
            })  # fmt: skip
            rows.append([name, number(value), span(low, high), number(found.sd and found.sd * scale, 2), cell.seeds])
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
    layout = layout_of(
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
            told = [[span(low, high), n] for low, high, n in zip(curve.low, curve.high, curve.seeds, strict=True)]
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
                [name, str(epoch), number(mean), span(low, high), str(n)]
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
    layout = layout_of("epoch", title, xaxis=axis, yaxis={"rangemode": "tozero"})
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
            "error_y": bars(ends), "marker": styles.marker(run, impl),
            "line": {"color": color(impl), "dash": styles.dash(run, impl), "width": 1.5},
            "customdata": [[span(low, high), number(guess)] for (_, low, high), guess in zip(ends, predicted, strict=True)],
            "hovertemplate": f"<b>{label}</b><br>{html.escape(key)} %{{x}}: %{{y:.4g}} s a step (%{{customdata[0]}})<br>"
            "cost model: %{customdata[1]} s<extra></extra>",
        })  # fmt: skip
        rows += [
            [name, str(x), number(step), span(low, high), number(guess)]
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
    layout = layout_of(title, "seconds a step", xaxis=axis, yaxis={"rangemode": "tozero"})
    table = Data(["curve", title, "s/step", "interval", "cost model"], [False, *[True] * 4], rows)
    named = f"{run.name}: cost by {title}" if run.name else f"Cost by {title}"
    return Chart(f"cost-{run.name}-{key}".replace(".", "-"), named, text, {"data": traces, "layout": layout}, table)
