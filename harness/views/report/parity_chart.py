"""The chart of the gates: the worst tensor of each level of the ladder, for each implementation."""

from __future__ import annotations

import html
import math

from harness.analysis.gates import Gate
from harness.text import number
from harness.views.report.chart import Chart, Data, Shown, layout_of


def parity_chart(run: Shown) -> Chart | None:
    """A field for each level and implementation; None if the gate compared nothing."""
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
    layout = layout_of(
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
